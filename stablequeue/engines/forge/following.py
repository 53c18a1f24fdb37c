"""Where a job is: by its task id, by its file, by what the server does at all.

`/internal/progress` is decoration: a job that raised stays `active` until the next one starts, a
refused one stays `queued` for ever, an ended one is forgotten after 16 others. The answer to the
request is the authority; when that is lost, the saved file is.
"""

import asyncio
from http import HTTPStatus

from stablequeue.engines.base import Located, Ticket
from stablequeue.engines.forge.answers import TaskProgress, text
from stablequeue.engines.forge.session import Session
from stablequeue.engines.forge.submission import Desk
from stablequeue.errors import EngineBusy

TWICE_S = 1.0
"""Before looking a second time for what seems to be gone: a request may still be arriving."""


class Follower:
    """Follows the jobs of one session, and jobs of other sessions by their tickets."""

    def __init__(self, session: Session, desk: Desk) -> None:
        self._session, self._client = session, session.client
        self._desk = desk

    async def locate(self, ticket: Ticket) -> Located:
        """Say where a job is; asks twice before it says GONE."""
        located = await self.look(ticket)
        if located is Located.GONE:
            await asyncio.sleep(TWICE_S)
            located = await self.look(ticket)
        return located

    async def look(self, ticket: Ticket) -> Located:
        """Look once.

        Proof that the server does not have it: neither running nor waiting there, and no file;
        where files cannot be read, another run of the server's process. Without either (a server
        with `--nowebui`) nobody can tell.
        """
        post = self._desk.posts.get(ticket.remote_id)
        if post is not None and not post.broken:
            return Located.RUNNING if post.in_flight else Located.DONE
        if ticket.data.get("kind") == "upscale":
            return await self._look_for_upscale(ticket)
        task = await self._task(ticket)
        if task is None:
            return Located.UNKNOWN
        return await self._look_at(task, ticket)

    async def _look_at(self, task: TaskProgress, ticket: Ticket) -> Located:
        if task.active:
            return Located.DONE if await self._has_raised(ticket) else Located.RUNNING
        if task.queued and not await self._is_leaked(ticket):
            return Located.QUEUED
        if task.completed:
            return Located.DONE
        located = await self._look_for_file(ticket)
        if located is not Located.DONE and not ticket.data.get("ids"):
            # A server without task ids runs something: it may be ours.
            located = located if (await self._client.state()).idle else Located.RUNNING
        return located

    async def _look_for_file(self, ticket: Ticket) -> Located:
        path = text(ticket.data.get("file"))
        status = await self._client.file_status(path) if path else HTTPStatus.UNAUTHORIZED
        if status == HTTPStatus.OK:
            return Located.DONE
        if await self.has_restarted(ticket):
            return Located.GONE
        if status == HTTPStatus.NOT_FOUND and await self._session.names_files():
            return Located.GONE
        return Located.UNKNOWN

    async def _look_for_upscale(self, ticket: Ticket) -> Located:
        """Upscaling has neither task id nor file: once the server rests, nothing is left of it."""
        if await self.has_restarted(ticket):
            return Located.GONE
        state = await self._client.state()
        return Located.GONE if state.idle else Located.RUNNING

    async def has_restarted(self, ticket: Ticket) -> bool:
        """Whether the process that got the job is no more; False while nobody can tell."""
        told = text(ticket.data.get("boot"))
        return bool(told) and (await self._session.boot()).id not in {"", told}

    async def _task(self, ticket: Ticket) -> TaskProgress | None:
        """Ask for a task; None on a server without task ids.

        Raises:
            EngineBusy: It has them, but they are not there yet: it is starting.
        """
        task = await self._client.task(ticket.remote_id)
        if task is None and ticket.data.get("webui"):
            boot = await self._session.boot()
            error = self._session.lacks(boot, "task progress", "server", "it has no web page now")
            if isinstance(error, EngineBusy):
                raise error
        return task

    async def _has_raised(self, ticket: Ticket) -> bool:
        """Whether an `active` job is over: nothing runs, and it still counts as active."""
        if not (await self._client.state()).idle:
            return False
        task = await self._client.task(ticket.remote_id)
        return task is not None and task.active and (await self._client.state()).idle

    async def _is_leaked(self, ticket: Ticket) -> bool:
        """Whether a `queued` job will never run: nothing runs, and still it does not start."""
        boot = await self._session.boot()
        if ticket.remote_id in boot.leaked:
            return True
        before = await self._client.state()
        if not before.idle:
            return False
        await asyncio.sleep(TWICE_S)
        after, task = await self._client.state(), await self._client.task(ticket.remote_id)
        unchanged = after.idle and after.job_timestamp == before.job_timestamp
        if unchanged and task is not None and task.queued:
            boot.leaked.add(ticket.remote_id)
            return True
        return False
