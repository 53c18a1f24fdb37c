"""Hold the server's graphics card while generating."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from filelock import AsyncFileLock

from stablequeue.pipeline.job import Job
from stablequeue.warm import CardHeld, given

_CARD_POLL_S = 0.1


class _Locked:
    """A card held by its file lock alone: it is free when the run lets it go."""

    def nearly_done(self) -> None:
        """Nobody can come while the lock is held."""

    def free(self) -> None:
        """It is given back at the end."""


@asynccontextmanager
async def hold_card(job: Job) -> AsyncGenerator[CardHeld]:
    """Hold the lock of the server's card; it is freed if this process dies.

    A warm worker grants it; without one, a file lock does (`docs/decisions/0005`).
    """
    warm = given.get()
    key = job.server.card_key
    job.waiting_for = f"the card {key}"
    if warm is not None and warm.gate is not None:
        about = {"job": job.id}
        gate = warm.gate.hold(
            card=key, server=job.server.alias, depth=job.engine.depth, about=about
        )
        try:
            async with gate as held:
                job.waiting_for = ""
                yield held
        finally:
            job.waiting_for = ""
        return
    name = "".join(c if c.isalnum() else "_" for c in key)
    job.settings.locks.mkdir(parents=True, exist_ok=True)
    lock = AsyncFileLock(job.settings.locks / f"card-{name}.lock", poll_interval=_CARD_POLL_S)
    try:
        await lock.acquire()
    finally:
        job.waiting_for = ""
    try:
        yield _Locked()
    finally:
        await lock.release()
