"""Stopping a job of ours and nothing else.

`/sdapi/v1/interrupt` stops whatever runs, whoever owns it, so it is only sent while the server
says that what runs is ours. Between that answer and the interrupt our job may end and another
begin; this API leaves no way to exclude that. A request that waits there cannot be withdrawn.
"""

import asyncio

from stablequeue.engines.base import Located, Ticket
from stablequeue.engines.forge.answers import TaskProgress
from stablequeue.engines.forge.following import Follower
from stablequeue.engines.forge.posting import Post
from stablequeue.engines.forge.session import Session
from stablequeue.engines.forge.submission import Desk

SETTLES_WITHIN_S = 2.0
"""An interrupt acts between two steps; so long we wait to see that it did."""

_LOOK_EVERY_S = 0.1


class Canceller:
    """Cancels jobs for one session."""

    def __init__(self, session: Session, desk: Desk, follower: Follower) -> None:
        self._session, self._client = session, session.client
        self._desk, self._follower = desk, follower

    async def cancel(self, ticket: Ticket) -> bool:
        """Ask once; return whether it certainly no longer waits or runs there."""
        task_id = ticket.remote_id
        if task_id in self._desk.waiting:
            return False  # not sent yet, but about to be
        post = self._desk.posts.get(task_id)
        if post is not None and not post.in_flight and not post.broken:
            return True
        has_id = ticket.data.get("kind") != "upscale"
        task = await self._client.task(task_id) if has_id else None
        if task is None or (task.unknown and not ticket.data.get("ids")):
            return await self._cancel_without_id(post)
        if task.unknown and post is not None and post.in_flight:
            task = await self._registered(task_id)
        if task.active:
            await self._interrupt(post)
            return await self._settles(ticket, post)
        return await self._follower.locate(ticket) in {Located.DONE, Located.GONE}

    async def _registered(self, task_id: str) -> TaskProgress:
        """Wait for a request that was just sent to be known there."""
        deadline = asyncio.get_running_loop().time() + SETTLES_WITHIN_S
        while True:
            task = await self._client.task(task_id) or TaskProgress()
            if not task.unknown or asyncio.get_running_loop().time() >= deadline:
                return task
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _cancel_without_id(self, post: Post | None) -> bool:
        """Without task ids what runs is ours only while our request is open."""
        state = await self._client.state()
        if post is not None and post.in_flight:
            if not state.idle:
                await self._interrupt(post)
            return await post.until_done(SETTLES_WITHIN_S)
        return state.idle

    async def _interrupt(self, post: Post | None) -> None:
        if post is not None:
            post.interrupted = True
        await self._client.interrupt()

    async def _settles(self, ticket: Ticket, post: Post | None) -> bool:
        deadline = asyncio.get_running_loop().time() + SETTLES_WITHIN_S
        while asyncio.get_running_loop().time() < deadline:
            if post is not None and not post.in_flight and not post.broken:
                return True
            task = await self._client.task(ticket.remote_id)
            if task is not None and not task.active and not task.queued:
                return True
            await asyncio.sleep(_LOOK_EVERY_S)
        return await self._follower.look(ticket) in {Located.DONE, Located.GONE}
