"""One download from the lock to the finished name.

What everybody may rely on: under the target's name there is nothing, or the whole verified file;
a file that was there before is never touched. A part file stays only where continuing makes sense:
after a cancellation, and after an error whose `retryable` is true. Whoever gives up then calls
`give_up`; `sweep` finds what nobody came back for.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stablequeue.errors import QueueError, WrongBytes
from stablequeue.models.downloads.checking import check_room
from stablequeue.models.downloads.fetching import Fetching
from stablequeue.models.downloads.finishing import (
    Downloaded,
    already,
    faults,
    give_name,
    verify,
)
from stablequeue.models.downloads.limits import Limits
from stablequeue.models.downloads.opening import Door
from stablequeue.models.downloads.owning import owning
from stablequeue.models.downloads.parts import Note, Part, continued
from stablequeue.models.downloads.progress import Meter, Progress
from stablequeue.models.downloads.writing import Writer
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.network import open_client
from stablequeue.models.sources.offer import Offer
from stablequeue.models.sources.patience import Pause

logger = logging.getLogger("stablequeue.models")


async def download(
    offer: Offer,
    target: Path,
    access: Access,
    *,
    locks: Path,
    limits: Limits | None = None,
    progress: Callable[[Progress], None] | None = None,
    wait_s: float | None = None,
    pause: Pause = asyncio.sleep,
) -> Downloaded:
    """Fetch `offer` to `target`; safe to call again after any interruption, also at the same time.

    Cancelling it is fine at any moment; calling it again continues.

    Args:
        offer: What a source offers.
        target: Name of the finished file; its folder is made.
        access: Of the offer's source.
        locks: Folder of lock files, shared by all that share the target's folder.
        limits: How eager and how patient.
        progress: Told now and then, in the event loop.
        wait_s: Seconds to wait for another process that fetches the same; None: as long as it
            takes.
        pause: Waits between tries.

    Raises:
        DownloadError: It cannot be had; `retryable` says whether later is different. The part
            file stays if so.
    """
    limits = limits or Limits()
    target = Path(os.path.abspath(target))  # noqa: PTH100, ASYNC240 - links keep their names
    async with owning(target, offer.sha256, locks, wait_s=wait_s, source=offer.source):
        part = Part(target)
        with faults(offer.source, target):
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            there = await asyncio.to_thread(already, offer, target)
            if there is not None:
                part.remove()
                return there
            run = _Run(
                offer=offer,
                part=part,
                access=access,
                limits=limits,
                progress=progress,
                pause=pause,
            )
            logger.info("fetching %s from %s", target.name, offer.source)
            try:
                size, sha256 = await run.whole()
                give_name(offer.source, part, target)
            except QueueError as error:
                if not error.retryable:
                    part.remove()
                raise
            except OSError:
                part.remove()
                raise
    logger.info("fetched %s: %d bytes, SHA-256 %s", target.name, size, sha256)
    return Downloaded(path=target, size=size, sha256=sha256, fetched=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One call of `download`, its target owned."""

    offer: Offer
    part: Part
    access: Access
    limits: Limits
    progress: Callable[[Progress], None] | None
    pause: Pause

    async def whole(self) -> tuple[int, str]:
        """Have the verified file as part file; return its size and SHA-256.

        What was resumed and turns out wrong is fetched once more from its first byte.
        """
        note = continued(self.offer, self.part.read())
        resumed = bool(note.spans)
        while True:
            try:
                size, sha256 = await self._bring(note)
                verify(self.offer, self.part, size, sha256)
            except WrongBytes:
                if not resumed:
                    raise
                resumed, note = False, continued(self.offer, None)
            else:
                return size, sha256

    async def _bring(self, note: Note) -> tuple[int, str]:
        limits, offer = self.limits, self.offer
        there = sum(end - start for start, end in note.spans)
        meter = Meter(self.progress, limits.tell_every_s)

        def room(size: int) -> None:
            check_room(self.part.path.parent, size - there, limits.margin)

        if note.size:
            room(note.size)
        async with open_client(
            self.access.reach, connect_s=limits.connect_s, read_s=limits.stall_s
        ) as client:
            with contextlib.closing(self.part.open(anew=not note.spans)) as file:
                writer = Writer(
                    file,
                    note.spans,
                    lambda spans: self.part.write(replace(note, spans=spans)),
                    every_s=limits.save_every_s,
                    most=limits.queued,
                )
                try:
                    fetching = Fetching(
                        offer,
                        Door(offer, self.access, client),
                        writer,
                        note,
                        limits,
                        meter=meter,
                        size_known=room,
                        pause=self.pause,
                    )
                    await fetching.run()
                    return await writer.finish(flush=limits.flush)
                finally:
                    await writer.close()
