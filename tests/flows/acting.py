"""What tests of the whole do to it: foreign jobs, held files, killed processes."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from filelock import FileLock

from stablequeue.catalogue import Catalogue
from stablequeue.client import Client
from stablequeue.ids import remote_key
from stablequeue.prefect_api import PrefectApi, Run
from stablequeue.sandbox.serving import Sandbox
from stablequeue.server_blocks import save_server, saved_server
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings
from stablequeue.up import caretaker
from stablequeue.worker.saved import SAVED_GOOD_FOR_S
from tests.support.waiting import wait_until

CHECKPOINT = "sandbox-sd15.safetensors"
WITHIN_S = 180.0
"""For what takes some seconds at most: generous, because a machine may be busy."""
ENDLESS = 1000
"""Steps of a job that goes on for longer than any test, unless it is interrupted (see `slow`)."""
SMALL = {"checkpoint": CHECKPOINT, "width": 64, "height": 64, "steps": 2}


class Foreign:
    """Somebody else's job, posted directly to a server of either protocol."""

    def __init__(self, sandbox: Sandbox, *, steps: int = 2) -> None:
        self.sandbox = sandbox
        self.answer: httpx.Response | None = None
        self.id = str(uuid4())
        body, path = self._body(steps)
        self._thread = threading.Thread(target=self._post, args=(path, body), daemon=True)
        self._thread.start()
        wait_until(self._is_there, timeout_s=WITHIN_S, why="the foreign job is on the server")

    @property
    def comfyui(self) -> bool:
        return self.sandbox.config.protocol == "comfyui"

    def ended_well(self) -> bool:
        """Whether its picture was made, whole."""
        if self.comfyui:
            history = httpx.get(f"{self.sandbox.url}/history/{self.id}").json()
            return bool(history) and history[self.id]["status"]["status_str"] == "success"
        self._thread.join(timeout=0)
        answer = self.answer
        if answer is None:
            return False
        assert answer.status_code == 200, answer.text[:300]
        ended = [
            note
            for note in self.sandbox.state.journal
            if note["what"] == "forge.end" and note["task"] == self.id
        ]
        return len(answer.json()["images"]) == 1 and bool(ended) and ended[0]["pictures"] == 1

    def _is_there(self) -> bool:
        if self.comfyui:
            return self.answer is not None
        return any(
            note["what"] == "forge.post" and note["task"] == self.id
            for note in self.sandbox.state.journal
        )

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self.answer = httpx.post(f"{self.sandbox.url}{path}", json=body, timeout=300)

    def _body(self, steps: int) -> tuple[dict[str, Any], str]:
        if not self.comfyui:
            small = {"width": 64, "height": 64, "steps": steps, "prompt": "somebody else's"}
            return {**small, "force_task_id": self.id}, "/sdapi/v1/txt2img"
        graph = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "theirs", "clip": ["1", 1]}},
            "3": {
                "class_type": "EmptyLatentImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 1},
            },
            "4": {
                "class_type": "KSampler",
                "inputs": {
                    "model": ["1", 0],
                    "positive": ["2", 0],
                    "negative": ["2", 0],
                    "latent_image": ["3", 0],
                    "seed": uuid4().int % 2**32,
                    "steps": steps,
                    "cfg": 1.0,
                    "sampler_name": "euler",
                    "scheduler": "normal",
                    "denoise": 1.0,
                },
            },
            "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
            "6": {
                "class_type": "SaveImage",
                "inputs": {"images": ["5", 0], "filename_prefix": "theirs"},
            },
        }
        return {"prompt": graph, "prompt_id": self.id, "client_id": "somebody"}, "/prompt"


@contextmanager
def held(sandboxes: Iterable[Sandbox]) -> Generator[None]:
    """Hold whatever these servers generate before its first step, until left.

    An interrupt is heard only afterwards, as on a card that is busy with one step.
    """
    servers = list(sandboxes)
    for sandbox in servers:
        sandbox.faults.add("stall", "step 1", times=-1)
    try:
        yield
    finally:
        for sandbox in servers:
            sandbox.faults.clear("stall")


@contextmanager
def slow(sandboxes: Iterable[Sandbox]) -> Generator[None]:
    """Let each step take half a second, so that a job of `ENDLESS` steps ends by interrupt only."""
    servers = list(sandboxes)
    for sandbox in servers:
        sandbox.config.step_seconds = 0.5
    try:
        yield
    finally:
        for sandbox in servers:
            sandbox.config.step_seconds = 0.0


@contextmanager
def saved_as(api: PrefectApi, *servers: ServerConfig) -> Generator[None]:
    """Save servers otherwise, for the block; entered and left once the worker has to know."""
    before = [saved_server(api, server.alias) for server in servers]
    _save(api, servers)
    try:
        yield
    finally:
        _save(api, before)


def _save(api: PrefectApi, servers: Iterable[ServerConfig]) -> None:
    for server in servers:
        save_server(api, server)
    known = time.monotonic() + SAVED_GOOD_FOR_S
    wait_until(lambda: time.monotonic() > known)


@contextmanager
def storing_held(settings: Settings) -> Generator[None]:
    """Keep every job from writing into the store, as another one with equal bytes would."""
    settings.locks.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for number in range(256):
            held.enter_context(FileLock(settings.locks / f"blob-{number:02x}.lock"))
        yield


def generations(sandbox: Sandbox, job_id: str, *, pictures: int = 1) -> int:
    """Return how often the card worked on this job."""
    ours = {
        str(remote_key(job_id, index, attempt))
        for index in range(pictures)
        for attempt in range(1, 9)
    }
    return sum(generation.label in ours for generation in sandbox.card.generations)


def generating(sandbox: Sandbox, job_id: str) -> Callable[[], bool]:
    """Return whether the card works on this job now, as a function."""
    ours = {str(remote_key(job_id, 0, attempt)) for attempt in range(1, 9)}

    def now() -> bool:
        return any(g.label in ours and g.ended is None for g in sandbox.card.generations)

    return now


def run_of(queue: Client, api: PrefectApi, job_id: str) -> Run:
    """Return a job's run as Prefect has it now."""
    return api.read_run(queue.job(job_id).flow_run_id)


def in_phase(queue: Client, ids: Iterable[str], name: str) -> None:
    """Wait until the runs of these jobs are in the phase of this name."""
    wanted = list(ids)

    def all_are() -> bool:
        return all(queue.job(job_id).phase == name for job_id in wanted)

    wait_until(all_are, timeout_s=WITHIN_S, every_s=0.3, why=f"the jobs are {name}")


def all_generate(sandboxes: Mapping[str, Sandbox], ids: Mapping[str, str]) -> None:
    """Wait until each server's card works on its job; `ids` are by alias."""

    def all_do() -> bool:
        return all(generating(sandboxes[alias], job_id)() for alias, job_id in ids.items())

    wait_until(all_do, timeout_s=WITHIN_S, why="the jobs generate")


def kill_process(run: Run, number: int = getattr(signal, "SIGKILL", signal.SIGTERM)) -> int:
    """Send a signal to a run's process; return its process id."""
    pid = int(run.process.rpartition(":")[2])
    os.kill(pid, number)
    return pid


def care_until(
    done: Callable[[], bool],
    catalogue: Catalogue,
    api: PrefectApi,
    monkeypatch: pytest.MonkeyPatch,
    *,
    timeout_s: float = WITHIN_S,
) -> None:
    """Let the caretaker of `stablequeue up` work, in a hurry, until `done()`."""
    monkeypatch.setattr(caretaker, "EVERY_S", 0.2)
    monkeypatch.setattr(caretaker, "_GRACE", timedelta())
    monkeypatch.setattr(caretaker, "_LOOK_EVERY_ROUNDS", 1)

    async def care() -> None:
        caring = asyncio.create_task(caretaker.Caretaker(catalogue, api).run())
        try:
            await asyncio.to_thread(wait_until, done, timeout_s=timeout_s, every_s=0.1)
        finally:
            caring.cancel()
            await asyncio.gather(caring, return_exceptions=True)

    asyncio.run(care())
