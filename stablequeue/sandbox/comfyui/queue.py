"""ComfyUI's queue and history: in memory, ordered by number, with no idea of idempotency."""

import asyncio
import copy
import heapq
from collections.abc import Callable
from typing import Any

JSON = dict[str, Any]
Item = tuple[float, str, JSON, JSON, list[str]]
"""number, prompt id, prompt, extra data, output nodes to run."""

LONGEST_HISTORY = 10_000
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptQueue:
    """Waiting, running and finished prompts of one server.

    `changed` is called after each change of the number of prompts. The heap compares whole items,
    so two prompts with equal number and id make `put` raise although the item is in, as there.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.waiting: list[Item] = []
        self.running: dict[int, Item] = {}
        self.history: dict[str, JSON] = {}
        self.flags: JSON = {}
        self._changed = changed
        self._taken = 0
        self._news = asyncio.Event()

    def put(self, item: Item) -> None:
        """Queue a prompt.

        Raises:
            TypeError: One with the same number and id waits already. It is queued all the same.
        """
        try:
            heapq.heappush(self.waiting, item)
        finally:
            self._news.set()
        self._changed()

    def remaining(self) -> int:
        """How many run or wait."""
        return len(self.waiting) + len(self.running)

    async def take(self) -> tuple[int, Item] | None:
        """Wait for a prompt and mark it as running; None when flags were set instead."""
        while not self.waiting:
            if self.flags:
                return None
            self._news.clear()
            await self._news.wait()
        item = heapq.heappop(self.waiting)
        self._taken += 1
        self.running[self._taken] = copy.deepcopy(item)
        self._changed()
        return self._taken, item

    def finish(self, number: int, result: JSON, status: JSON) -> None:
        """Move a running prompt to the history; one with the same id is replaced in its place."""
        item = self.running.pop(number)
        while len(self.history) > LONGEST_HISTORY:
            del self.history[next(iter(self.history))]
        extra = {key: value for key, value in item[3].items() if key not in SECRETS}
        prompt = [*item[:3], extra, item[4]]
        self.history[item[1]] = {"prompt": prompt, "outputs": {}, "status": status, **result}
        self._changed()

    def set_flag(self, name: str, value: Any) -> None:
        """Leave word for the worker."""
        self.flags[name] = value
        self._news.set()

    def take_flags(self) -> JSON:
        """Return the flags, and forget them."""
        flags, self.flags = self.flags, {}
        return flags

    def wipe(self) -> None:
        """Forget everything that waits, whoever queued it."""
        self.waiting = []
        self._changed()

    def delete(self, prompt_id: Any) -> bool:
        """Forget the first waiting prompt with this id; whether there was one."""
        for index, item in enumerate(self.waiting):
            if item[1] == prompt_id:
                if len(self.waiting) == 1:
                    self.wipe()
                    return True
                del self.waiting[index]
                heapq.heapify(self.waiting)
                self._changed()
                return True
        return False

    def page(self, most: int | None, offset: int) -> JSON:
        """Return part of the history: with `offset` below 0 the newest `most`, oldest first."""
        if offset < 0 and most is not None:
            offset = len(self.history) - most
        chosen: JSON = {}
        for index, (prompt_id, entry) in enumerate(self.history.items()):
            if index < offset:
                continue
            chosen[prompt_id] = entry
            if most is not None and len(chosen) >= most:
                break
        return chosen
