"""Part files nobody continues."""

import asyncio
import contextlib
import time
from pathlib import Path

from stablequeue.errors import DownloadError
from stablequeue.models.downloads.finishing import faults
from stablequeue.models.downloads.owning import owning
from stablequeue.models.downloads.parts import Part, target_of


async def give_up(target: Path, *, locks: Path, source: str = "download") -> None:
    """Remove what an unfinished download of `target` left; fine if there is nothing.

    Raises:
        DownloadBusy: Somebody is at it.
        TargetTaken: It cannot be removed.
    """
    async with owning(target, "", locks, wait_s=0, source=source):
        with faults(source, target):
            Part(target).remove()


async def sweep(folder: Path, *, locks: Path, older_than_s: float) -> list[Path]:
    """Remove part files below `folder` that nobody owns and nobody touched for so long.

    Returns:
        The targets they belonged to.
    """
    removed: list[Path] = []
    for target in await asyncio.to_thread(_stale, folder, older_than_s):
        with contextlib.suppress(DownloadError):  # owned, or not ours to remove
            await give_up(target, locks=locks)
            removed.append(target)
    return removed


def _stale(folder: Path, older_than_s: float) -> list[Path]:
    before = time.time() - older_than_s
    youngest: dict[Path, float] = {}
    for path in folder.rglob("*.part*"):
        target = target_of(path)
        if target is not None:
            with contextlib.suppress(OSError):
                youngest[target] = max(youngest.get(target, 0.0), path.lstat().st_mtime)
    return sorted(target for target, touched in youngest.items() if touched <= before)
