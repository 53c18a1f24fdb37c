"""Replays recorded timelines: jobs run while their progress is polled.

The recorded moments are events, not times: for each recorded answer the sandbox is led on step by
step until it says the same, so nothing depends on how fast the machine is.
"""

import copy
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from stablequeue.sandbox.forge.payloads import Txt2ImgPayload
from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.gate import Gate
from tests.sandbox.forge.recorded import Differences, files_below, load, pattern_of

_PATIENCE_S = 2.0
_POLL_S = 0.003
_PROGRESS = "/internal/progress"
_SDAPI_PROGRESS = "/sdapi/v1/progress"
_PENDING = "/internal/pending-tasks"
_STOPS = ("/sdapi/v1/interrupt", "/sdapi/v1/skip")

Item = dict[str, Any]


def is_timeline(recording: Any) -> bool:
    """Say whether a recording is one of polled jobs."""
    return isinstance(recording, dict) and {"timeline", "results"} <= recording.keys()


@dataclass
class Job:
    """One request of a timeline."""

    name: str
    path: str
    body: dict[str, Any]
    answer: "Future[httpx.Response] | None" = None

    @property
    def task(self) -> str:
        return str(self.body.get("force_task_id"))


@dataclass
class Runner:
    """Sends jobs when the timeline needs them, and leads the sandbox to each recorded answer."""

    peer: Peer
    jobs: list[Job]
    differences: Differences
    gate: Gate
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))
    stopped: bool = False
    active: set[str] = field(default_factory=set[str])

    def run(self, items: list[Item]) -> None:
        """Go through the timeline, then wait for every answer."""
        for index, item in enumerate(items):
            if (item.get("POST") or item.get("GET")) in _STOPS:
                self._lead_to_stop(items[index + 1 :], f"before item {index}")
            if "status" in item:
                self._item(item, f"item {index}")
        for job in self.jobs:
            self._send(job)
        self.gate.open()
        for job in self.jobs:
            assert job.answer is not None
            job.answer.exception(_PATIENCE_S)

    def _lead_to_stop(self, following: list[Item], where: str) -> None:
        """Go on to where the server was when it was stopped: what was polled right after tells."""
        item = copy.deepcopy(next((i for i in following if "status" in i), None))
        if item is None:
            return
        if "state" in item["json"]:
            item["json"]["state"].update(interrupted=False, skipped=False)
        if item["json"].get("active") or item["json"].get("state", {}).get("job_count"):
            self._item(item, where)

    def _item(self, item: Item, where: str) -> None:
        self._send_due(item)
        path = item.get("POST") or item.get("GET")
        if path in _STOPS:
            if not self.active:
                self._lead(lambda: (None if self.gate.holds else "not begun", False), item, where)
            self._exchange(item, where)
            self.stopped = True
        elif path == _PROGRESS and item["status"] == 200 and item["body"].get("id_task"):
            self._lead(lambda: self._progress(item), item, where)
            if item["json"]["active"]:
                self.active.add(item["body"]["id_task"])
        elif path == _PENDING:
            self._lead(lambda: self._pending(item), item, where)
        elif str(path).startswith(_SDAPI_PROGRESS):
            self._lead(lambda: self._sdapi(item), item, where)
        else:
            self._exchange(item, where)

    def _send(self, job: Job) -> None:
        """Send a job, and those that came before it, each once the last one is registered."""
        for one in self.jobs[: self.jobs.index(job) + 1]:
            if one.answer is None:
                posted = len(self.peer.journal("forge.post"))
                one.answer = self.pool.submit(self.peer.post, one.path, one.body)
                while len(self.peer.journal("forge.post")) == posted and not one.answer.done():
                    time.sleep(_POLL_S)

    def _send_due(self, item: Item) -> None:
        """Send the jobs a recorded answer shows to be there already."""
        path = str(item.get("POST") or item.get("GET"))
        told = item["json"]
        if path == _PROGRESS and item["status"] == 200 and item["body"].get("id_task"):
            needed = {item["body"]["id_task"]: int(told["active"]) + int(told["queued"])}
        elif path == _PENDING:
            needed = {task: 1 + (task in self.active) for task in told["tasks"]}
        else:
            polls = path.startswith(_SDAPI_PROGRESS) and told["state"]["job_count"] != 0
            none_sent = all(job.answer is None for job in self.jobs)
            wanted = (polls or path in _STOPS) and none_sent and bool(self.jobs)
            needed = {self.jobs[0].task: 1} if wanted else {}
        for task, count in needed.items():
            for job in [job for job in self.jobs if job.task == task][:count]:
                self._send(job)

    def _lead(self, attempt: Callable[[], tuple[Any, bool]], item: Item, where: str) -> None:
        """Poll until `attempt` has nothing to say.

        It returns the difference (None: none) and whether the sandbox must go on for it to vanish.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            held = self.gate.holds
            problem, must_go_on = attempt()
            if problem is None:
                return
            if held and must_go_on:
                self.gate.release()
            if time.monotonic() > deadline:
                self.differences.note(where, item["json"], problem)
                return
            time.sleep(_POLL_S)

    def _progress(self, item: Item) -> tuple[Any, bool]:
        recorded = item["json"]
        ours = self.peer.post(_PROGRESS, item["body"]).json()
        assert [*ours] == [*recorded]
        ended = ours["completed"] and not ours["active"] and not ours["queued"]
        # What passes too quickly here to be seen: the rest of a stopped job, and its very end.
        if recorded["active"] and ended and (self.stopped or recorded["progress"] == 1.0):
            return None, False
        keys = ("active", "queued", "completed", "textinfo", "id_live_preview")
        flags = ("active", "queued")
        seen = any(ours[flag] for flag in flags)
        if any(recorded[key] != ours[key] for key in keys):
            waits_for_turn = [recorded[f] for f in flags] != [ours[f] for f in flags]
            too_many = _queue_length(ours) > _queue_length(recorded)
            return ours, seen and (waits_for_turn or too_many or not recorded["queued"])
        if recorded["progress"] is None:
            return (None, False) if ours["progress"] is None else (ours, False)
        if (recorded["live_preview"] is None) != (ours["live_preview"] is None):
            return ours, True
        near_end = recorded["progress"] == 1.0 and ours["progress"] > 0.8
        same = abs(ours["progress"] - recorded["progress"]) < 1e-9
        return (None, False) if same or near_end else (ours, True)

    def _pending(self, item: Item) -> tuple[Any, bool]:
        recorded, ours = item["json"], self.peer.get(_PENDING).json()
        return (None, False) if ours == recorded else (ours, ours["size"] > recorded["size"])

    def _sdapi(self, item: Item) -> tuple[Any, bool]:
        ours = self.peer.get(item["GET"]).json()
        shape = Differences(self.peer.folder)
        shape.shape(item["json"], ours)
        assert shape.found == []
        recorded, told = item["json"]["state"], ours["state"]
        assert abs(ours["progress"] - _fraction(told)) < 1e-9
        begun = bool(recorded["job_no"] or recorded["sampling_step"])
        # A job's name and steps change a moment before its first step, which passes too quickly.
        late = ("job", "sampling_steps") if begun else ()
        counters = ("job_count", "job_no", "sampling_step", *late)
        flags = ("skipped", "interrupted", "stopping_generation")
        if all(recorded[key] == told[key] for key in (*counters, *flags)):
            return None, False
        if self.stopped and told["job_count"] == 0 and recorded["interrupted"]:
            return None, False
        return ours, any(recorded[key] != told[key] for key in counters)

    def _exchange(self, item: Item, where: str) -> None:
        method = "POST" if "POST" in item else "GET"
        body = item.get("body")
        options = {"json": body} if body is not None else {}
        answer = self.peer.client.request(method, item[method], **options)
        self.differences.same(item["status"], answer.status_code, f"{where} status")
        self.differences.same(item["json"], answer.json(), where)


def _queue_length(told: dict[str, Any]) -> int:
    text = told["textinfo"] or ""
    return int(text.rpartition("/")[2]) if text.startswith("In queue") else 0


def _fraction(state: dict[str, Any]) -> float:
    """Return what progress a state stands for."""
    if state["job_count"] == 0:
        return 0.0
    done = 0.01
    if state["job_count"] > 0:
        done += state["job_no"] / state["job_count"]
        if state["sampling_steps"] > 0:
            done += state["sampling_step"] / state["sampling_steps"] / state["job_count"]
    return min(done, 1.0)


def compare_result(recorded: dict[str, Any], job: Job, differences: Differences) -> None:
    """Compare a job's answer with the recorded one."""
    assert job.answer is not None
    answer = job.answer.result(_PATIENCE_S)
    differences.same(recorded["status"], answer.status_code, f"{job.name} status")
    ours = answer.json()
    if "images" not in recorded["json"]:
        differences.same(recorded["json"], ours, job.name)
        return
    differences.generation(job.body, recorded["json"], ours)
    if "png" in recorded and len(recorded["png"]) == len(ours["images"]):
        differences.pictures(job.body, recorded["png"], ours["images"])


def leak(peer: Peer, tasks: list[str]) -> None:
    """Let tasks stay pending for ever, as bad pictures do."""
    for task in tasks:
        body = {"init_images": ["zzz"], "force_task_id": task}
        assert peer.post("/sdapi/v1/img2img", body).status_code == 500


LEAKED = ["task(img2img-U8W6AQH)", "task(img2img-X3M042S)"]


def replay_timeline(name: str, start_peer: StartPeer) -> Differences:
    """Replay a recording with `timeline` and `results`."""
    recording = load(name)
    items: list[Item] = recording["timeline"]
    jobs = jobs_of(recording)
    if name == "concurrent_three":
        jobs[1], jobs[2] = jobs[2], jobs[1]  # they overtook each other within 30 ms
    peer = start_peer()
    if name == "real_unet_live_preview_every_step":
        peer.post("/sdapi/v1/options", {"show_progress_every_n_steps": 1})
    if name == "failed_job_task_state_after":
        bad = {"steps": 8, "width": 0, "height": 64, "force_task_id": "bad"}
        assert peer.post("/sdapi/v1/txt2img", bad).status_code == 500
    finished = {job.task for job in jobs if _was_finished_before(job.task, items)}
    for task in sorted(finished):
        quick = {"steps": 1, "width": 64, "height": 64, "force_task_id": task}
        assert peer.post("/sdapi/v1/txt2img", quick).status_code == 200
    own = {job.task for job in jobs}
    lists = [item["json"]["tasks"] for item in items if item.get("GET") == _PENDING]
    queued = any("In queue" in str(item.get("json")) for item in items)
    leak(peer, [task for task in lists[0] if task not in own] if lists else LEAKED[: 2 * queued])
    before = files_below(peer.folder)
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox, hold_loading=name == "real_unet_run_128_4steps")
    runner = Runner(peer, jobs, differences, gate)
    with runner.pool:
        runner.run(items)
    for job in jobs:
        compare_result(recording["results"][job.name], job, differences)
    fails = any(result["status"] != 200 for result in recording["results"].values()) or not jobs
    _check_the_end(runner, items, fails=fails)
    new = sorted(pattern_of(path) for path in files_below(peer.folder) - before)
    differences.same(sorted(pattern_of(path) for path in recording["new_files"]), new, "files")
    return differences


def jobs_of(recording: dict[str, Any]) -> list[Job]:
    """Return the requests of a recording; where they were not kept, their echo tells them."""
    if "requests" in recording:
        return [Job(r["name"], r["path"], r["body"]) for r in recording["requests"]]
    told = recording["results"]["main"]["json"]["parameters"]
    defaults = Txt2ImgPayload().model_dump()
    body = {key: value for key, value in told.items() if value != defaults[key]}
    return [Job("main", "/sdapi/v1/txt2img", body)]


def _was_finished_before(task: str, items: list[Item]) -> bool:
    for item in items:
        if item.get("POST") == _PROGRESS and item["body"].get("id_task") == task:
            return bool(item["json"]["completed"])
    return False


def _check_the_end(runner: Runner, items: list[Item], *, fails: bool) -> None:
    """Compare the last recorded answers once more, exactly, now that all is over."""
    for item in items[-4:]:
        path = item.get("POST") or item.get("GET")
        if path == _PROGRESS and item["status"] == 200:
            if item["json"]["active"] and not fails:
                continue  # told while it ran
            runner.differences.same(item["json"], runner.peer.post(path, item["body"]).json())
        elif path == _PENDING:
            runner.differences.same(item["json"], runner.peer.get(path).json())
        elif str(path).startswith(_SDAPI_PROGRESS):
            recorded = item["json"]
            if recorded["state"]["job_count"] == 0:
                ours = runner.peer.get(str(path)).json()
                recorded["state"]["job_timestamp"] = ours["state"]["job_timestamp"]
                runner.differences.same(recorded, ours)
