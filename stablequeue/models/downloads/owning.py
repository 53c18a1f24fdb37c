"""One process fetches one file: locks that end with their owner.

Each download holds two lock files, one of its target's path and one of the file's SHA-256, in a
folder that everybody who shares the library shares too. They are locks of the operating system:
when an owner dies, however it dies, the next one gets them at once. Lock files stay; removing one
that another process is about to lock would let two in.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stablequeue.errors import DownloadBusy, TargetTaken

_EVERY_S = 0.1


@asynccontextmanager
async def owning(
    target: Path, sha256: str, locks: Path, *, wait_s: float | None, source: str
) -> AsyncGenerator[None]:
    """Own a target and its content for the length of the block.

    Args:
        target: Where the file goes.
        sha256: Lower case hex; empty: unknown, then only the target is owned.
        locks: Folder of the lock files; made if need be.
        wait_s: How long to wait for the present owner; None: as long as it takes.
        source: For the message.

    Raises:
        DownloadBusy: It is still owned by somebody else. Retryable.
        TargetTaken: The lock files cannot be made.
    """
    deadline = None if wait_s is None else time.monotonic() + wait_s
    async with AsyncExitStack() as stack:
        for name in _names(target, sha256):
            lock = FileLock(locks / name, mode=0o666, thread_local=False)
            try:
                await _acquire(lock, locks, deadline)
            except Timeout as error:
                raise DownloadBusy(
                    source, f"another process is fetching {target.name}; wait for it"
                ) from error
            except OSError as error:
                raise TargetTaken(
                    source, f"cannot lock below {locks}: {error.strerror or error}"
                ) from error
            stack.callback(lock.release)
        yield


async def _acquire(lock: FileLock, locks: Path, deadline: float | None) -> None:
    await asyncio.to_thread(locks.mkdir, parents=True, exist_ok=True)
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            await asyncio.sleep(_EVERY_S)
        else:
            return


def _names(target: Path, sha256: str) -> list[str]:
    where = os.path.normcase(os.path.abspath(target))  # noqa: PTH100 - links keep their names
    by_path = f"path-{hashlib.sha256(where.encode()).hexdigest()[:32]}.lock"
    return [by_path, f"sha256-{sha256}.lock"] if sha256 else [by_path]
