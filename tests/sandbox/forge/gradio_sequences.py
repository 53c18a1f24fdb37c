"""Replays the recordings of Gradio's queue."""

import io
import json
import re
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from PIL import Image

from stablequeue.sandbox.forge.facts import rows
from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.gate import Gate
from tests.sandbox.forge.recorded import (
    Differences,
    files_below,
    is_object,
    load,
    masked_info,
    pattern_of,
    told_text,
)
from tests.sandbox.forge.timeline import LEAKED, Job, compare_result, leak
from tests.support.waiting import wait_until

Message = dict[str, Any]


def messages(recording: Any) -> list[Message]:
    """Return the recorded messages of an event stream."""
    log: list[Any] = recording["log"] if is_object(recording) else recording
    return [item["msg"] for item in log if "msg" in item]


@contextmanager
def listening(peer: Peer, session: str) -> Generator[Iterator[Message]]:
    """Open a session's event stream."""
    query = {"session_hash": session}
    with peer.client.stream("GET", "/queue/data", params=query) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))


def heard(peer: Peer, session: str) -> list[Message]:
    """Return a session's events to the end."""
    with listening(peer, session) as stream:
        return [message for message in stream if message["msg"] != "heartbeat"]


def compare_messages(
    recorded: list[Message], ours: list[Message], differences: Differences
) -> None:
    """Compare the events of one job: order, keys, and the output but for numbers and places."""
    recorded = [message for message in recorded if message["msg"] != "heartbeat"]
    order = [[message["msg"] for message in told] for told in (recorded, ours)]
    differences.same(order[0], order[1], "order of events")
    for one, other in zip(recorded, ours, strict=False):
        where = one["msg"]
        differences.same([*one], [*other], f"{where} keys")
        if where == "estimation":
            differences.same(one["rank"], other["rank"], "rank")
            differences.same(one["queue_size"], other["queue_size"], "queue size")
        if where == "process_completed":
            differences.same(one["success"], other["success"], "success")
            compare_output(one["output"], other["output"], differences)


def compare_output(recorded: Message, ours: Message, differences: Differences) -> None:
    """Compare a job's output."""
    differences.same([*recorded], [*ours], "output keys")
    if "data" not in recorded:
        differences.same(recorded, ours, "output")
        return
    theirs, told = recorded["data"], ours["data"]
    differences.same(len(theirs), len(told), "values")
    if isinstance(theirs[0], list):
        differences.same(len(theirs[0]), len(told[0]), "gallery")
        for one, other in zip(theirs[0], told[0], strict=False):
            differences.shape(one, other, "gallery")
            differences.same(_place(one), _place(other, differences), "path")
        if theirs[1]:
            infos = [masked_info(info, {"seed": 5}) for info in (theirs[1], told[1])]
            differences.same(infos[0], infos[1], "generation info")
        differences.same(theirs[2], told[2], "html")
        differences.same(_timeless(theirs[3]), _timeless(told[3]), "last html")
    else:
        differences.same(theirs, told, "data")


def _place(item: Message, differences: Differences | None = None) -> str:
    path = item["image"]["path"]
    if "tmp" in path.rsplit("/", 1)[-1]:
        return "a temporary file"
    folder = path.split("/outputs/")[0]
    assert differences is None or folder.endswith("/forge")
    return pattern_of(path.removeprefix(folder))


def _timeless(html: str) -> str:
    return re.sub(r"[\d.]+ sec\.", "# sec.", html)


def run_alone(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """Join, listen to the end, look at the files."""
    peer = start_peer()
    differences = Differences(peer.folder)
    joined = join(peer, recording, differences)
    if joined is not None:
        compare_messages(messages(recording), heard(peer, recording["session"]), differences)
    _compare_files(recording, peer, differences)
    return differences


def join(peer: Peer, recording: dict[str, Any], differences: Differences) -> str | None:
    """Send a recorded job; return its event's id, or None when it was refused."""
    recorded = next(item for item in recording["log"] if item.get("POST") == "/queue/join")
    answer = peer.post("/queue/join", recording["request_body"])
    differences.same(recorded["status"], answer.status_code, "join")
    if recorded["status"] != 200:
        differences.same(recorded["json"], answer.json(), "join")
        return None
    differences.shape(recorded["json"], answer.json(), "join")
    return str(answer.json()["event_id"])


def _compare_files(recording: dict[str, Any], peer: Peer, differences: Differences) -> None:
    names = [
        sorted(map(pattern_of, told)) for told in (recording["new_files"], files_below(peer.folder))
    ]
    differences.same(names[0], names[1], "files")


def interrupt(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """An interrupted job gives its half picture as a temporary file; flags are reset at once."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    join(peer, recording, differences)
    wait_until(lambda: gate.holds, every_s=0.002)
    task = recording["request_body"]["data"][0]
    told = [item for item in recording["log"] if "progress" in item]
    differences.same([*told[0]["progress"]], [*peer.progress(task)], "progress keys")
    differences.same(told[0]["progress"]["active"], peer.progress(task)["active"], "active")
    differences.same(told[0]["queue_status"], peer.get("/queue/status").json(), "queue status")
    assert peer.post("/sdapi/v1/interrupt").json() == {}
    gate.open()
    compare_messages(messages(recording), heard(peer, recording["session"]), differences)
    state = peer.get("/sdapi/v1/progress").json()["state"]
    differences.same(False, state["interrupted"], "flag after")
    _compare_files(recording, peer, differences)
    return differences


def listen_late(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """Events are kept until they are read."""
    peer = start_peer()
    differences = Differences(peer.folder)
    join(peer, recording, differences)
    task = recording["request_body"]["data"][0]
    wait_until(lambda: peer.progress(task)["completed"], every_s=0.01)
    compare_messages(messages(recording), heard(peer, recording["session"]), differences)
    _compare_files(recording, peer, differences)
    return differences


def disconnect_mid(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """A dropped stream does not stop the job, but its events are lost."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    session = recording["session"]
    join(peer, recording, differences)
    with listening(peer, session) as stream:
        compare_messages(messages(recording), [next(stream), next(stream)], differences)
    _expect_lost(peer, session)
    gate.open()
    task = recording["request_body"]["data"][0]
    wait_until(lambda: peer.progress(task)["completed"], every_s=0.01)
    differences.same(3, len(files_below(peer.folder)), "pictures and a grid are saved all the same")
    return differences


def _expect_lost(peer: Peer, session: str) -> None:
    def lost() -> bool:
        with listening(peer, session) as stream:
            if next(stream)["msg"] != "unexpected_error":
                return False
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                list(stream)
        return True

    wait_until(lost, every_s=0.05)


def reconnect_same_session(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Each new stream of a lost session tells an error and breaks; the job runs on."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    body = load("gradio_run_ok")["request_body"]
    assert peer.post("/queue/join", body).status_code == 200
    with listening(peer, body["session_hash"]) as stream:
        first = [next(stream), next(stream)]
    compare_messages(messages(recording)[:2], first, differences)
    error = next(m for m in messages(recording) if m["msg"] == "unexpected_error")
    for _ in range(2):
        _expect_lost(peer, body["session_hash"])
    with listening(peer, body["session_hash"]) as stream:
        differences.same(error, next(stream), "error")
    gate.open()
    wait_until(lambda: peer.progress(body["data"][0])["completed"], every_s=0.01)
    differences.same(recording[-1]["progress"], peer.progress(body["data"][0]), "progress")
    return differences


def cancel(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """Cancelling ends the stream, not the work."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    body = load("gradio_run_ok")["request_body"]
    event = peer.post("/queue/join", body).json()["event_id"]
    wait_until(lambda: gate.holds, every_s=0.002)
    with listening(peer, body["session_hash"]) as stream:
        ours = [next(stream), next(stream)]
        told = {"session_hash": body["session_hash"], "fn_index": 256, "event_id": event}
        answer = peer.post("/cancel", told)
        recorded = next(item for item in recording if item.get("POST") == "/cancel")
        differences.same(
            [recorded["status"], recorded["json"]], [answer.status_code, answer.json()]
        )
        ours += list(stream)
    compare_messages(messages(recording), ours, differences)
    progress = peer.progress(body["data"][0])
    recorded_progress = recording[-1]["progress_after_cancel"]
    differences.same(recorded_progress["active"], progress["active"], "still active")
    gate.open()
    return differences


def call_api(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """`/call` tells file addresses that are wrong; the path is right."""
    peer = start_peer()
    differences = Differences(peer.folder)
    data = load("gradio_run_ok")["request_body"]["data"]
    data[4] = 1
    states = {row["i"] for row in rows("gradio_inputs") if row["type"] == "state"}
    assert states
    answer = peer.post("/call/txt2img_1", {"data": data})
    differences.same(recording[0]["status"], answer.status_code, "call")
    event = answer.json()["event_id"]
    lines = peer.get(f"/call/txt2img_1/{event}").text.split("\n")
    differences.same(recording[1]["line"], lines[0], "first line")
    assert lines[1].startswith("data: ")
    gallery, info, html, last = json.loads(lines[1][6:])
    differences.same(1, len(gallery), "gallery")
    assert gallery[0]["image"]["url"].startswith(f"{peer.sandbox.url}/cal/file=")
    assert json.loads(info)["seed"] == 5
    assert html.startswith("<p>a cat<br>\nSteps: ")
    assert "Time taken" in last
    return differences


def _restore(peer: Peer, task: str, session: str) -> list[Message]:
    body = {"data": [task], "fn_index": 260, "session_hash": session, "trigger_id": 21}
    assert peer.post("/queue/join", body).status_code == 200
    return heard(peer, session)


def restore_ok(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """The last two results can be had again by task id."""
    peer = start_peer()
    differences = Differences(peer.folder)
    body = load("gradio_run_ok")["request_body"]
    for number, name in enumerate(["task(old)", recording["task"], "task(new)"]):
        data = [name, *body["data"][1:4], 1, *body["data"][5:]]
        session = f"s{number}"
        peer.post("/queue/join", body | {"data": data, "session_hash": session})
        heard(peer, session)
    compare_messages(messages(recording), _restore(peer, recording["task"], "r1"), differences)
    old = _restore(peer, "task(old)", "r2")[2]["output"]["data"]
    assert "Couldn't restore progress for task(old)" in old[3]
    return differences


def restore_unknown(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """Of an unknown task nothing can be had."""
    peer = start_peer()
    differences = Differences(peer.folder)
    compare_messages(messages(recording), _restore(peer, recording["task"], "r"), differences)
    return differences


def fetch_files(recording: list[dict[str, Any]], start_peer: StartPeer) -> Differences:
    """The data folder is open to everybody, the rest is not."""
    peer = start_peer()
    differences = Differences(peer.folder)
    body = load("gradio_run_ok")["request_body"]
    peer.post("/queue/join", body)
    gallery = heard(peer, body["session_hash"])[2]["output"]["data"][0]
    pictures = iter(item["image"]["url"] for item in gallery)
    for index, item in enumerate(recording):
        url = next(pictures) if "png" in item else item["url"].replace("/forge", str(peer.folder))
        if "passwd" in url:
            url = f"/file={__file__}"  # a file that is there on every system
        answer = peer.get(url)
        where = f"item {index}"
        differences.same(item["status"], answer.status_code, where)
        if "png" in item:
            _compare_picture(item, answer, differences, where)
        elif item["status"] != 200:
            told = item["text"].replace("/etc/passwd", __file__)
            differences.same(told, answer.text, where)
    return differences


def _compare_picture(
    item: dict[str, Any], answer: httpx.Response, differences: Differences, where: str
) -> None:
    differences.same(item["ct"], answer.headers["content-type"], where)
    picture = Image.open(io.BytesIO(answer.content))
    recorded = item["png"]
    theirs = [
        recorded["format"],
        recorded["size"],
        recorded["mode"],
        recorded["info"]["parameters"],
    ]
    told = [picture.format, [*picture.size], picture.mode, told_text(picture)]
    differences.same(theirs, told, where)


def concurrent_mixed(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """Three Gradio jobs and one of the API, which overtakes those that wait in Gradio's queue."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    leak(peer, [*LEAKED, "leak"])
    body = load("gradio_run_ok")["request_body"]
    sessions = {"1": "g1", "2": "g2", "3": "g3"}
    names = {"1": "task(two1)", "2": "task(two2)", "3": "task(two3)"}
    for number, session in sessions.items():
        values = [names[number], *body["data"][1:4], 1, *body["data"][5:]]
        values[33] = 10 + int(number)
        assert peer.post("/queue/join", body | {"data": values, "session_hash": session}).is_success
        wait_until(lambda: gate.holds, every_s=0.002)
    job_body = {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "seed": 5}
    job = Job("sdmix", "/sdapi/v1/txt2img", job_body | {"force_task_id": "sdmix"})
    with ThreadPoolExecutor(1) as pool:
        job.answer = pool.submit(peer.post, job.path, job.body)
        wait_until(lambda: "sdmix" in peer.get("/internal/pending-tasks").text, every_s=0.005)
        sample = {
            "qs": peer.get("/queue/status").json(),
            "pend": peer.get("/internal/pending-tasks").json(),
        }
        differences.same(recording["samples"][0], sample, "while the first runs")
        _lead_until(gate, lambda: peer.progress("sdmix")["active"])
        wait_until(lambda: "two2" in peer.get("/internal/pending-tasks").text, every_s=0.005)
        sample = {
            "qs": peer.get("/queue/status").json(),
            "pend": peer.get("/internal/pending-tasks").json(),
        }
        differences.same(recording["samples"][2], sample, "while the API's job runs")
        gate.open()
        compare_result(recording["sdapi"]["sdmix"], job, differences)
    for number, session in sessions.items():
        ours = heard(peer, session)
        recorded = messages(recording["gradio_logs"][number])
        order = [[message["msg"] for message in told] for told in (recorded, ours)]
        differences.same(order[0], order[1], f"events of {number}")
        differences.same(recorded[0]["rank"], ours[0]["rank"], f"rank of {number}")
        differences.same(recorded[0]["queue_size"], ours[0]["queue_size"], f"size of {number}")
    return differences


def _lead_until(gate: Gate, reached: Callable[[], bool]) -> None:
    def lead() -> bool:
        held = gate.holds
        if reached():
            return True
        if held:
            gate.release()
        return False

    wait_until(lead, every_s=0.003)


def killed_midrun(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """A killed server breaks event streams and answers nobody."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    body = load("gradio_run_ok")["request_body"]
    peer.post("/queue/join", body)
    wait_until(lambda: gate.holds, every_s=0.002)

    def waiting() -> str:
        with httpx.Client(base_url=peer.sandbox.url, timeout=20, trust_env=False) as client:
            try:
                client.post("/sdapi/v1/txt2img", json={"steps": 1})
            except httpx.HTTPError as error:
                return repr(error)
        return "answered"

    with ThreadPoolExecutor(1) as pool, listening(peer, body["session_hash"]) as stream:
        ours = [next(stream), next(stream)]
        waiter = pool.submit(waiting)
        wait_until(lambda: peer.journal("forge.post"), every_s=0.005)
        peer.sandbox.stop()
        try:
            ours += list(stream)
            error = "none"
        except httpx.HTTPError as caught:
            error = repr(caught)
        recorded_error = recording["sdapi_waiting"]["waiting"]["client_error"]
        differences.same(recorded_error, waiter.result(10), "waiting")
    compare_messages(messages(recording["gradio"]), ours, differences)
    differences.same(recording["gradio"][-1]["client_error"], error, "stream")
    return differences


GRADIO: dict[str, Callable[[Any, StartPeer], Differences]] = {
    "gradio_bad_dropdown": run_alone,
    "gradio_bad_fn": run_alone,
    "gradio_bad_length": run_alone,
    "gradio_bad_width": run_alone,
    "gradio_call_api": call_api,
    "gradio_cancel": cancel,
    "gradio_concurrent_mixed": concurrent_mixed,
    "gradio_disconnect_mid": disconnect_mid,
    "gradio_fetch_files": fetch_files,
    "gradio_interrupt": interrupt,
    "gradio_listen_late": listen_late,
    "gradio_reconnect_same_session": reconnect_same_session,
    "gradio_restore_progress_ok": restore_ok,
    "gradio_restore_progress_unknown": restore_unknown,
    "gradio_run_ok": run_alone,
    "server_killed_midrun": killed_midrun,
}
