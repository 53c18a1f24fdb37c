"""One life of the sandbox's ComfyUI: queue, worker, sockets, folders."""

import asyncio
from typing import Any

from stablequeue.sandbox.comfyui.executor import PROTOCOL, Executor
from stablequeue.sandbox.comfyui.folders import Folders
from stablequeue.sandbox.comfyui.hub import Hub
from stablequeue.sandbox.comfyui.queue import PromptQueue
from stablequeue.sandbox.models import ModelShelf
from stablequeue.sandbox.state import SandboxState

JSON = dict[str, Any]
# Between taking a prompt and starting it, and between success and the history: a few
# milliseconds there (timing of the recordings), so that clients meet both windows here.
_PICKUP_S = 0.004
_FILING_S = 0.004


class Server:
    """What the routes work on.

    Attributes:
        number: The next prompt's number; starts at 0 with each boot.
        features: What `/features` tells.
    """

    def __init__(self, state: SandboxState) -> None:
        self.state = state
        self._folders = Folders(state.home / "comfyui")
        self._folders.prepare()
        self.features: JSON = {
            "supports_preview_metadata": True,
            "max_upload_size": state.config.max_upload_bytes,
        }
        self.number = 0
        self.hub = Hub(self.features)
        self.queue = PromptQueue(self._queue_changed)
        self.hub.status = self.queue_info()
        self.executor = Executor(state, self.hub, self._folders)
        self._tasks: list[asyncio.Task[None]] = []
        state.on_startup.append(self._start)
        state.reports[PROTOCOL] = self._report

    @property
    def models(self) -> ModelShelf:
        """The model files."""
        return self.state.models

    @property
    def folders(self) -> Folders:
        """Where pictures come from and go to."""
        return self._folders

    def queue_info(self) -> JSON:
        """Return what `status` messages and `GET /prompt` tell."""
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def _queue_changed(self) -> None:
        self.hub.status = self.queue_info()
        self.hub.send("status", {"status": self.hub.status})

    def _report(self) -> JSON:
        return {
            "running": [item[1] for item in self.queue.running.values()],
            "waiting": [item[1] for item in sorted(self.queue.waiting, key=lambda i: i[:2])],
            "history": list(self.queue.history),
        }

    async def _start(self) -> None:
        self._tasks = [
            asyncio.create_task(self.hub.publish(), name="comfyui messages"),
            asyncio.create_task(self._work(), name="comfyui worker"),
        ]

    async def _work(self) -> None:
        while True:
            taken = await self.queue.take()
            if taken is not None:
                number, item = taken
                await asyncio.sleep(_PICKUP_S)
                await self.executor.run(item)
                await asyncio.sleep(_FILING_S)
                await self.state.strike("history", PROTOCOL)
                self._file(number, item[1])
            flags = self.queue.take_flags()
            if flags.get("unload_models", flags.get("free_memory")):
                self.state.card.unload(self.state.owner(PROTOCOL))
            if flags.get("free_memory"):
                self.executor.forget()

    def _file(self, number: int, prompt_id: str) -> None:
        """Write the history entry, then tell the client that its prompt has ended."""
        executor = self.executor
        status = {
            "status_str": "success" if executor.success else "error",
            "completed": executor.success,
            "messages": executor.messages,
        }
        self.queue.finish(number, executor.history_result, status)
        self.state.note("finished", prompt_id=prompt_id, success=executor.success)
        if self.hub.client_id is not None:
            told = {"node": None, "prompt_id": prompt_id}
            self.hub.send("executing", told, self.hub.client_id)
