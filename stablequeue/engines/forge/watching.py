"""How far a job is, for people: by polling its task id, or all the server does.

`progress` jumps back with each pass, is 0 while the model loads (`job_count` is then -1) and stays
below 1 on short jobs; so it is decoration, and never goes back here.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from stablequeue.engines.base import Located, Phase, Progress, Ticket
from stablequeue.engines.forge.answers import State, TaskProgress
from stablequeue.engines.forge.following import Follower
from stablequeue.engines.forge.posting import Post
from stablequeue.engines.forge.session import Session
from stablequeue.engines.forge.submission import Desk
from stablequeue.errors import EngineError

POLL_S = 0.5
"""Between two looks at a job."""

_UNSEEN_BEFORE_LOOKING = 6  # polls; then the file and the server's identity are asked too
_GLOBAL_PREVIEW_EVERY = 4  # polls; without task ids a preview is the whole picture each time


async def observe(
    session: Session, desk: Desk, follower: Follower, ticket: Ticket
) -> AsyncGenerator[Progress]:
    """Yield what is seen of a job until it ended; faults are waited out."""
    watch = _Watch(session, desk, follower, ticket)
    while True:
        try:
            progress = await watch.see()
        except EngineError:
            progress = None  # it keeps trying; collecting tells what is wrong
        if progress is not None:
            yield progress
        if watch.ended:
            return
        await watch.pause()


@dataclass
class _Watch:
    """What was seen of one job so far."""

    session: Session
    desk: Desk
    follower: Follower
    ticket: Ticket
    ended: bool = False
    _fraction: float = 0.0
    _stepped: bool = False
    _preview_id: int = -1
    _unseen: int = 0
    _polls: int = 0
    _was_seen: bool = False

    async def pause(self) -> None:
        """Wait for the next look, but no longer than the answer takes."""
        if (post := self._post) is not None and post.in_flight:
            await post.until_done(POLL_S)
        else:
            await asyncio.sleep(POLL_S)

    async def see(self) -> Progress | None:
        """Look once; sets `ended`."""
        task_id = self.ticket.remote_id
        if (ahead := self.desk.waiting.get(task_id)) is not None:
            if not ahead or self.desk.busy:  # only our own picture before this one is there
                return Progress(phase=Phase.QUEUED)
            message = "Waiting for somebody else on the server"
            return Progress(phase=Phase.WAITING, position=ahead, message=message)
        if (post := self._post) is not None and not post.in_flight and not post.broken:
            self.ended = True
            return None
        self._polls += 1
        if self.ticket.data.get("kind") == "upscale":
            return await self._globally(post)
        task = await self.session.client.task(task_id, preview=self._preview_id)
        return await (self._globally(post) if task is None else self._by_id(task, post))

    async def _by_id(self, task: TaskProgress, post: Post | None) -> Progress | None:
        if task.unknown and not self.ticket.data.get("ids") and post is not None:
            return await self._globally(post)
        if task.active:
            return await self._active(task, post)
        if task.queued:
            self._was_seen = True
            return Progress(phase=Phase.QUEUED, position=await self._position())
        if task.completed:
            self.ended = post is None or post.broken
            return Progress(phase=Phase.FINISHING, fraction=self._reached(1.0))
        return await self._not_seen(post)

    @property
    def _post(self) -> Post | None:
        return self.desk.posts.get(self.ticket.remote_id)

    async def _active(self, task: TaskProgress, post: Post | None) -> Progress | None:
        self._was_seen = True
        state = await self.session.client.state()
        self._note_stop(state, post)
        if state.idle and (post is None or post.broken):
            # A job that raised stays active: nothing runs, so it is over.
            self.ended = await self.follower.look(self.ticket) is Located.DONE
        if task.id_live_preview is not None and task.live_preview:
            self._preview_id = task.id_live_preview
        return self._described(task.progress or 0.0, state, _decoded(task.live_preview))

    async def _globally(self, post: Post | None) -> Progress | None:
        """Without task ids: while our request is open, what runs is ours."""
        if post is None or not post.in_flight:
            self.ended = post is None or not post.broken
            return None
        picture = self._polls % _GLOBAL_PREVIEW_EVERY == 0
        seen = await self.session.client.progress(picture=picture)
        self._note_stop(seen.state, post)
        return self._described(seen.progress, seen.state, _decoded(seen.current_image))

    async def _not_seen(self, post: Post | None) -> Progress | None:
        self._unseen += 1
        if post is None or post.broken:
            due = self._was_seen or self._unseen >= _UNSEEN_BEFORE_LOOKING
            if due and await self.follower.look(self.ticket) in {Located.DONE, Located.GONE}:
                self.ended = True
                return None
        return Progress(phase=Phase.QUEUED)

    async def _position(self) -> int:
        boot = await self.session.boot()
        waiting = [t for t in await self.session.client.pending() or () if t not in boot.leaked]
        place = waiting.index(self.ticket.remote_id) if self.ticket.remote_id in waiting else 0
        return place + 1  # one runs

    def _note_stop(self, state: State, post: Post | None) -> None:
        if post is not None and (state.interrupted or state.skipped):
            post.stopped_stamps.add(state.job_timestamp)

    def _described(self, fraction: float, state: State, preview: bytes | None) -> Progress:
        step = max(state.sampling_step, 0)
        # Until the first step of a job, Forge still tells how many the job before had.
        self._stepped = self._stepped or step > 0
        steps = max(state.sampling_steps, 0) if self._stepped else 0
        if state.job_count < 0:
            return Progress(phase=Phase.LOADING, fraction=self._fraction or None)
        over = fraction >= 1 or (state.job_count > 0 and state.job_no >= state.job_count)
        several = state.job_count > 1
        return Progress(
            phase=Phase.FINISHING if over else Phase.SAMPLING,
            fraction=self._reached(fraction),
            step=min(step, steps),
            steps=steps,
            message=(
                f"Pass {state.job_no + 1} of {state.job_count}, step {min(step, steps)} of {steps}"
                if several and not over
                else ""
            ),
            preview=preview,
        )

    def _reached(self, fraction: float) -> float:
        """Return how far it ever was: each pass makes the server begin again."""
        if 0 <= fraction <= 1:  # NaN is neither
            self._fraction = max(self._fraction, fraction)
        return self._fraction


def _decoded(picture: str | None) -> bytes | None:
    """Return a preview's bytes: base64, after `data:image/png;base64,` or without that."""
    if not picture:
        return None
    try:
        return base64.b64decode(picture.rpartition(",")[2], validate=True) or None
    except (binascii.Error, ValueError):
        return None
