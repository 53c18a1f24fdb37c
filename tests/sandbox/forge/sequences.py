"""Replays the recordings that are neither one exchange nor a polled timeline."""

import base64
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from stablequeue.sandbox import ModelShelf
from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.endings import ENDINGS
from tests.sandbox.forge.gate import Gate
from tests.sandbox.forge.gradio_sequences import GRADIO
from tests.sandbox.forge.recorded import (
    Differences,
    decoded,
    files_below,
    pattern_of,
    png,
    told_text,
)
from tests.sandbox.forge.timeline import LEAKED, Job, Runner, compare_result, leak
from tests.support.waiting import wait_until

Replay = Callable[[Any, StartPeer], Differences]

_JOB = {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "seed": 5}
_AUTH = {
    "none": None,
    "wrong": httpx.BasicAuth("u", "wrong"),
    "ok": httpx.BasicAuth("u", "p"),
    "http basic": httpx.BasicAuth("u", "p"),
}


def _posted(path: str) -> dict[str, Any]:
    """Return what was sent: bodies of these were not kept."""
    bodies: dict[str, Any] = {
        "/internal/progress": {"id_task": "x"},
        "/sdapi/v1/txt2img": {"prompt": "x", "steps": 1, "width": 64, "height": 64},
        "/queue/join": {"data": [], "fn_index": 256, "session_hash": "x"},
        "/call/txt2img_1": {"data": []},
    }
    return {"json": bodies[path]} if path in bodies else {}


def api_auth(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Extensions' routes were 404 in the first moment: replayed on a server that boots late."""
    peer = start_peer(api_auth="u:p")
    late = start_peer(api_auth="u:p", late_routes_s=600)
    differences = Differences(peer.folder)
    for index, item in enumerate(recording):
        missing = item["status"] == 404
        _one(item, late if missing else peer, differences, f"item {index}")
    return differences


def gradio_auth(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Log in as recorded: one of two cookies is for HTTPS only."""
    peer = start_peer(gradio_auth="u:p")
    differences = Differences(peer.folder)
    for index, item in enumerate(recording):
        where = f"item {index}"
        if "login_bad" in item:
            bad = peer.post("/login", data={"username": "u", "password": "x"})
            differences.same([item["login_bad"], item["body"]], [bad.status_code, bad.text], where)
        elif "login_ok" in item:
            good = peer.post("/login", data={"username": "u", "password": "p"})
            differences.same([item["login_ok"], item["body"]], [good.status_code, good.text], where)
            _compare_cookies(item["headers"]["set-cookie"], good, differences)
        elif item["auth"] == "http basic":
            with httpx.Client(base_url=peer.sandbox.url, auth=_AUTH["ok"], trust_env=False) as bare:
                status = bare.get(item["path"]).status_code
            differences.same(item["status"], status, where)
        else:
            _one(item, peer, differences, where)
    return differences


def _compare_cookies(recorded: str, answer: httpx.Response, differences: Differences) -> None:
    theirs = [cookie.split("; ") for cookie in recorded.split(", ")]
    ours = [cookie.split("; ") for cookie in answer.headers.get_list("set-cookie")]
    differences.same(len(theirs), len(ours), "cookies")
    for one, other in zip(theirs, ours, strict=True):
        attributes = [sorted(map(str.lower, told[1:])) for told in (one, other)]
        differences.same(attributes[0], attributes[1], "cookie attributes")
        assert other[0].startswith("access-token-")
        differences.same("secure-" in one[0], "secure-" in other[0], "cookie name")


def _one(item: dict[str, Any], peer: Peer, differences: Differences, where: str) -> None:
    auth = _AUTH.get(item.get("auth", "none"))
    method = item.get("method", "GET")
    options = _posted(item["path"]) if method == "POST" else {}
    if auth is not None:
        options["auth"] = auth
    answer = peer.client.request(method, item["path"], **options)
    where = f"{where} {item['path']}"
    differences.same(item["status"], answer.status_code, where)
    if "www" in item:
        differences.same(item["www"], answer.headers.get("www-authenticate"), f"{where} challenge")
    body = item.get("body", "")
    whole = body.endswith(("}", "]", "null")) and len(body) < 190
    if whole and not body.startswith('{"images'):
        differences.same(httpx.Response(200, text=body).json(), answer.json(), where)
    elif body.startswith(("{", "[")) and "SCUNET" not in body:
        differences.same(body[:9].replace(" ", ""), answer.text[:9].replace(" ", ""), where)


def nowebui_no_models(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """A bare API without any model."""
    peer = start_peer(nowebui=True, models=ModelShelf())
    differences = Differences(peer.folder)
    for index, item in enumerate(recording):
        _one(item, peer, differences, f"item {index}")
    return differences


def sd_models_after_both_loaded(recording: Any, start_peer: StartPeer) -> Differences:
    """Titles get their hash with the first load."""
    peer = start_peer()
    for title in ("random-sd15.safetensors", "sub dir/other-sd15.safetensors"):
        override = {"sd_model_checkpoint": title}
        peer.post("/sdapi/v1/txt2img", {**_JOB, "override_settings": override})
    differences = Differences(peer.folder)
    differences.same(recording, peer.get("/sdapi/v1/sd-models").json())
    return differences


def state_after_interrupt(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """The flag stays until the next job begins, also when set while idle."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)

    def run(steps: int, *, stop: bool = False) -> None:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(peer.post, "/sdapi/v1/txt2img", {**_JOB, "steps": steps})
            wait_until(lambda: gate.holds, every_s=0.002)
            if stop:
                peer.post("/sdapi/v1/interrupt")
            for _ in range(40):
                if answer.done():
                    break
                wait_until(lambda: gate.holds or answer.done(), every_s=0.002)
                gate.release()
            assert answer.result(10).status_code == 200

    def compare(item: dict[str, Any]) -> None:
        (name, recorded), *_ = item.items()
        ours = peer.get("/sdapi/v1/progress?skip_current_image=true").json()
        recorded["state"]["job_timestamp"] = ours["state"]["job_timestamp"]
        differences.same(recorded, ours, name)

    actions: list[Callable[[], Any]] = [
        lambda: run(8, stop=True),
        lambda: None,
        lambda: run(1),
        lambda: peer.post("/sdapi/v1/interrupt"),
        lambda: run(2),
    ]
    for item, act in zip(recording, actions, strict=True):
        act()
        compare(item)
    return differences


def client_drop_sdapi(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Two clients go away: the running and the waiting job are done all the same."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    leak(peer, [*LEAKED, "leak"])
    bodies = [
        {"prompt": "a cat", "steps": 8, "width": 64, "height": 64, "seed": 901 + k}
        | {"save_images": True, "force_task_id": f"drop{1 + k}"}
        for k in range(2)
    ]
    errors: list[str] = []

    def give_up(body: dict[str, Any]) -> None:
        timeout = httpx.Timeout(5, read=0.7)
        with httpx.Client(base_url=peer.sandbox.url, timeout=timeout, trust_env=False) as client:
            try:
                client.post("/sdapi/v1/txt2img", json=body)
            except httpx.ReadTimeout:
                errors.append("ReadTimeout")

    threads = [threading.Thread(target=give_up, args=(body,)) for body in bodies]
    for number, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda n=number: len(peer.journal("forge.post")) == n + 3, every_s=0.002)
    for thread in threads:
        thread.join()
    differences.same(["ReadTimeout"] * 2, errors, "clients")
    runner = Runner(peer, [], differences, gate)
    items = [item for item in recording if "status" in item]
    runner.run(items)
    names = ["drop1", "drop2"]
    wait_until(lambda: all(peer.progress(name)["completed"] for name in names))
    recorded_files = sorted(map(pattern_of, recording[-1]["new_files"]))
    differences.same(recorded_files, sorted(map(pattern_of, files_below(peer.folder))), "files")
    return differences


def interrupt_during_model_load(
    recording: list[dict[str, Any]], start_peer: StartPeer
) -> Differences:
    """An interrupted load gives no picture at all."""
    peer = start_peer()
    peer.post("/sdapi/v1/txt2img", {**_JOB, "steps": 1, "override_settings": {}})
    result = next(item["ml"] for item in recording if "ml" in item)
    override = {"sd_model_checkpoint": "other-sd15"}
    body = {**_JOB, "n_iter": 2, "save_images": True, "override_settings": override}
    job = Job("ml", "/sdapi/v1/txt2img", body | {"force_task_id": "ml"})
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox, hold_loading=True)
    runner = Runner(peer, [job], differences, gate)
    runner.run([item for item in recording[:-1] if "status" in item])
    compare_result(result, job, differences)
    last = recording[-1]["json"]
    ours = peer.get("/sdapi/v1/progress?skip_current_image=true").json()
    last["state"]["job_timestamp"] = ours["state"]["job_timestamp"]
    differences.same(last, ours, "state after")
    return differences


def run_progress_hires(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Two passes an iteration: progress counts four."""
    peer = start_peer()
    body = {**_JOB, "n_iter": 2, "enable_hr": True, "denoising_strength": 0.5}
    body |= {"hr_additional_modules": ["Use same choices"], "force_task_id": "hr"}
    differences = Differences(peer.folder)
    runner = Runner(peer, [Job("hr", "/sdapi/v1/txt2img", body)], differences, Gate(peer.sandbox))
    runner.run(recording)
    assert runner.jobs[0].answer is not None
    differences.same(200, runner.jobs[0].answer.result().status_code)
    return differences


def options_changed_during_run(
    recording: list[dict[str, Any]], start_peer: StartPeer
) -> Differences:
    """Options reach the running job: its bytes change, and it loads another checkpoint."""
    peer = start_peer()
    for title in ("sub dir/other-sd15.safetensors", "random-sd15.safetensors"):
        override = {"sd_model_checkpoint": title}
        peer.post("/sdapi/v1/txt2img", {**_JOB, "override_settings": override})
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    body = {**_JOB, "n_iter": 3, "force_task_id": "oc"}
    job = Job("oc", "/sdapi/v1/txt2img", body)
    with ThreadPoolExecutor(2) as pool:
        job.answer = pool.submit(peer.post, job.path, body)
        wait_until(lambda: gate.holds, every_s=0.002)
        refresh = None
        for index, item in enumerate(recording):
            path = item.get("POST") or item.get("GET")
            if path is None:
                continue
            if "refresh" in path:  # waits for the running job
                refresh = pool.submit(peer.post, path)
                time.sleep(0.1)
                differences.same(False, refresh.done(), "refresh waits")
                continue
            options = {"json": item["body"]} if item.get("body") is not None else {}
            answer = peer.client.request("POST" if "POST" in item else "GET", path, **options)
            differences.same(item["status"], answer.status_code, f"item {index}")
            compare = differences.shape if "memory" in path else differences.same
            compare(item["json"], answer.json(), f"item {index}")
        gate.open()
        assert refresh is not None
        differences.same(200, refresh.result(10).status_code, "refresh")
    result = next(item["oc"] for item in recording if "oc" in item)
    compare_result(result, job, differences)
    options_told = next(item["opts"] for item in recording if "opts" in item)
    ours = peer.get("/sdapi/v1/options").json()
    differences.same(options_told, {key: ours[key] for key in options_told}, "options")
    assert peer.journal("forge.stall"), "it loaded the other checkpoint in the middle"
    return differences


def filename_patterns(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Which names saved pictures get; every override is pinned before, so none leaks."""
    peer = start_peer()
    after = recording[-1]["options_after"]
    assert peer.post("/sdapi/v1/options", after).status_code == 200
    differences = Differences(peer.folder)
    for index, item in enumerate(recording):
        if "override" not in item:
            continue
        before = files_below(peer.folder)
        body = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 3}
        body |= {"save_images": True, "override_settings": item["override"]}
        answer = peer.post("/sdapi/v1/txt2img", body | item["request_extra"])
        images = answer.json().get("images", [])
        told = [answer.status_code, len(images)]
        differences.same([item["status"], item["images"]], told, f"item {index}")
        new = sorted(files_below(peer.folder) - before)
        differences.same(
            [_numbered(name) for name in item["new_files"]],
            [_numbered(name) for name in new],
            f"item {index} files",
        )
        if len(images) == 1 and new:
            saved = decoded(images[0])
            on_disk = peer.get(f"/file={new[0].removeprefix('/forge/')}")
            assert on_disk.status_code == 200
            assert saved.mode == recording[2]["modes"][0]
            assert told_text(saved)
    ours = peer.get("/sdapi/v1/options").json()
    differences.same(after, {key: ours[key] for key in after}, "options after")
    return differences


def _numbered(name: str) -> str:
    stem = name.rsplit("/", 1)[1].removesuffix(".png")
    return name.replace(f"{stem}.png", "NUMBER.png") if stem.isdigit() else name


def recover_by_filename(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Find pictures again by a name chosen before."""
    peer = start_peer()
    differences = Differences(peer.folder)
    override: dict[str, Any] = {}
    for index, item in enumerate(recording):
        where = f"item {index}"
        if "options_before" in item or "options_after" in item:
            (told,) = item.values()
            ours = peer.get("/sdapi/v1/options").json()
            differences.same(told, {key: ours[key] for key in told}, where)
        elif "POST" in item:
            answer = peer.post(item["POST"], item["body"])
            differences.same([item["status"], item["json"]], [answer.status_code, answer.json()])
        elif "n" in item:
            override = item["override"]
            body = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 5}
            body |= {"batch_size": 2, "n_iter": 2, "save_images": True}
            answer = peer.post("/sdapi/v1/txt2img", body | {"override_settings": override})
            told = [answer.status_code, len(answer.json()["images"])]
            differences.same([item["status"], item["n"]], told, where)
        elif "GET" in item:
            _compare_file(item, peer, differences, where)
        elif "HEAD" in item:
            answer = peer.client.head("/file=outputs/txt2img-images/jq-abc123-1.png")
            differences.same(item["HEAD"], answer.status_code, where)
            theirs = item["headers"].keys() - {"server", "date"}
            missing = theirs - answer.headers.keys()
            differences.same([], sorted(missing), f"{where} headers")
            differences.same(item["headers"]["content-type"], answer.headers["content-type"], where)
    grids = [name for name in files_below(peer.folder) if "grids" in name]
    differences.same(1, len(grids), "grids")
    return differences


def _compare_file(item: dict[str, Any], peer: Peer, differences: Differences, where: str) -> None:
    answer = peer.get(item["GET"])
    differences.same(item["status"], answer.status_code, where)
    if isinstance(item["png"], str):
        differences.same(item["png"], answer.text, where)
        return
    picture = decoded(base64.b64encode(answer.content).decode())
    told = [picture.format, [*picture.size], picture.mode, told_text(picture)]
    recorded = item["png"]
    text = recorded["info"]["parameters"]
    differences.same([recorded["format"], recorded["size"], recorded["mode"], text], told, where)


def timing_stealth_scan(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """An RGB picture without text is looked at pixel by pixel; sizes are made small here."""
    peer = start_peer()
    differences = Differences(peer.folder)
    for index, item in enumerate(recording):
        if "path" not in item or item["path"] == "img2img" or item["size"] == 1024:
            continue
        size = (item["size"], item["size"])
        text = "x" if item["has_parameters_chunk"] else ""
        slow = item["mode"] == "RGB" and not text
        if slow and item["size"] > 256:
            continue  # seconds, growing with the square of the pixels
        body = {"image": png(size, text=text, mode=item["mode"]), "upscaler_1": "Lanczos"}
        started = time.monotonic()
        status = peer.post(item["path"], body).status_code
        took = time.monotonic() - started
        differences.same(item["status"], status, f"item {index}")
        assert took > 0.8 * item["took_s"] if slow else True
    return differences


BY_NAME: dict[str, Replay] = {
    "api_auth": api_auth,
    "client_drop_sdapi": client_drop_sdapi,
    "filename_patterns": filename_patterns,
    "gradio_auth": gradio_auth,
    "interrupt_during_model_load": interrupt_during_model_load,
    "nowebui_no_models": nowebui_no_models,
    "options_changed_during_run": options_changed_during_run,
    "recover_by_filename": recover_by_filename,
    "run_progress_hires": run_progress_hires,
    "sd-models_after_both_loaded": sd_models_after_both_loaded,
    "state_after_interrupt": state_after_interrupt,
    "timing_stealth_scan_and_gzip": timing_stealth_scan,
    **ENDINGS,
    **GRADIO,
}
