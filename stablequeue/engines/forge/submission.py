"""Handing a job over: wait until nobody else is there, protect the settings, send, look once."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import httpx

from stablequeue.engines.base import EngineJob, Ticket
from stablequeue.engines.forge import options, payload
from stablequeue.engines.forge.answers import JSON
from stablequeue.engines.forge.boot import Boot
from stablequeue.engines.forge.doorman import Doorman
from stablequeue.engines.forge.failures import failure
from stablequeue.engines.forge.posting import Post
from stablequeue.engines.forge.session import Session
from stablequeue.errors import EngineAuthFailed, EngineUnreachable, JobRejected

LOOK_EVERY_S = 0.25
"""Between two looks at a server that somebody else uses."""

REFUSED_WITHIN_S = 0.05
"""A refusal of the request itself comes at once; waiting so long tells it from `submit`."""

_MOST_SILENT = 3  # looks without an answer: a server with all threads taken answers none


@dataclass
class Desk:
    """What a session has sent and is about to send, by task id.

    Attributes:
        posts: Requests, answered or not.
        waiting: Jobs not sent yet: how many others are there.
        answered: Called whenever a request got its answer; a broken connection is none.
    """

    posts: dict[str, Post] = field(default_factory=dict[str, Post])
    waiting: dict[str, int] = field(default_factory=dict[str, int])
    answered: Callable[[], None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request of ours has no answer yet."""
        return any(post.in_flight for post in self.posts.values())

    def tell(self, post: Post) -> None:
        """Pass on that a request is done."""
        if not post.broken and self.answered is not None:
            self.answered()

    def forget_answered(self) -> None:
        """Drop answers of earlier jobs: each holds a whole picture."""
        for task_id in [key for key, post in self.posts.items() if not post.in_flight]:
            del self.posts[task_id]


class Submitter:
    """Sends the jobs of one session, one at a time."""

    def __init__(self, session: Session, desk: Desk, doorman: Doorman) -> None:
        self._session, self._client = session, session.client
        self._desk, self._doorman = desk, doorman
        self._one = asyncio.Lock()

    async def submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        """Wait for the server, send the job, return the ticket to follow.

        Raises:
            JobRejected: The server refused it at once, or a picture cannot be read.
            EngineUnreachable: The request was not written as a whole, so nothing runs.
        """
        task_id, keys = ticket.remote_id, payload.override_keys(job)
        encoded = await asyncio.to_thread(payload.read_pictures, self._session.alias, job)
        self._desk.waiting[task_id] = 0
        try:
            async with self._one:
                boot, pinned = await self._turn(task_id, keys)
                body = payload.build(job, encoded, remote_id=task_id, pinned=pinned)
                post = Post(self._client, payload.PATHS[_kind(ticket)], json.dumps(body).encode())
                self._desk.forget_answered()
                self._desk.posts[task_id] = post
                post.answer.add_done_callback(lambda _task: self._desk.tell(post))
        finally:
            self._desk.waiting.pop(task_id, None)
        await post.until_sent()
        await self._settle(post, boot, task_id)
        data: JSON = {**ticket.data, "boot": boot.id, "protected": pinned}
        if not pinned:
            data["file"] = ""
        return replace(ticket, data=data)

    async def _turn(self, task_id: str, keys: set[str]) -> tuple[Boot, bool]:
        """Wait until the server is free; return its boot, and whether overrides will be undone."""
        silent = 0
        while True:
            try:
                boot = await self._session.boot()
                ahead = await self._doorman.ahead(boot)
                pinned = None
                if not ahead and not self._desk.busy:
                    fresh = not keys <= boot.pinned
                    pinned = await options.pin(self._client, boot, keys)
                    if pinned is not None and (not fresh or not await self._doorman.ahead(boot)):
                        return boot, pinned
            except EngineUnreachable as error:
                silent += 1
                if silent >= _MOST_SILENT or not _is_silence(error):
                    raise
                continue
            silent = 0
            self._desk.waiting[task_id] = ahead
            await asyncio.sleep(LOOK_EVERY_S)

    async def _settle(self, post: Post, boot: Boot, task_id: str) -> None:
        """Tell a refusal that comes at once, and a request that was never written."""
        if not await post.until_done(REFUSED_WITHIN_S):
            return
        if post.broken:
            if post.sent.is_set():
                return  # it may run: collecting looks for it
            self._desk.posts.pop(task_id, None)
            error = post.answer.exception()
            if isinstance(error, EngineUnreachable):
                raise EngineUnreachable(error.server, error.detail) from error
            raise EngineUnreachable(self._session.alias, "the job could not be handed over")
        response = post.answer.result()
        if response.is_success:
            return
        refusal = failure(self._session.server, response)
        if isinstance(refusal, JobRejected | EngineAuthFailed):
            # A job refused while its pictures are decoded leaves its id in the waiting list.
            boot.leaked.add(task_id)
            self._desk.posts.pop(task_id, None)
            raise refusal


def _kind(ticket: Ticket) -> str:
    data: Mapping[str, object] = ticket.data
    return str(data.get("kind"))


def _is_silence(error: EngineUnreachable) -> bool:
    return isinstance(error.__cause__, httpx.ReadTimeout | TimeoutError)
