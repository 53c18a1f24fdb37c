"""What must be tidied now and then: the trash, files nobody counts, results nobody stored."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from filelock import FileLock

from stablequeue.catalogue import ENDED, Blob, Catalogue
from stablequeue.errors import NotFound, Refused
from stablequeue.pipeline.job import check_job_id, logger
from stablequeue.pipeline.storing import blob_lock_name
from stablequeue.settings import Settings
from stablequeue.storage import Store

DAY_S = 86_400.0

StoreNamed = Callable[[str], Store]


@dataclass(frozen=True, slots=True)
class Tidied:
    """What one round removed.

    Attributes:
        files: Stored files whose last picture left the trash.
        spooled: Spool folders of jobs that ended long ago.
    """

    files: int
    spooled: int


def tidy(settings: Settings, catalogue: Catalogue, store_named: StoreNamed) -> Tidied:
    """Empty the trash of what lay there for `keep_trash_days`, and old leftovers of the spool.

    May be run at any time and by several processes; a store that does not answer keeps its files
    for the next round.

    Raises:
        StoreError: A store fails; what was done before stays done.
    """
    unused = catalogue.purge_trash(older_than_s=settings.keep_trash_days * DAY_S)
    files = sum(_delete(blob, settings, catalogue, store_named) for blob in unused)
    return Tidied(files=files, spooled=_empty_spool(settings, catalogue))


def _delete(blob: Blob, settings: Settings, catalogue: Catalogue, store_named: StoreNamed) -> bool:
    settings.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.locks / blob_lock_name(blob.sha256)):
        now = catalogue.blob(blob.store, blob.sha256)
        if now is not None and now.refs:
            return False  # stored again meanwhile
        store_named(blob.store).delete(blob.key)
        name = f"{blob.sha256}.webp"
        (settings.thumbnails / blob.sha256[:2] / name).unlink(missing_ok=True)
        return catalogue.forget_blob(blob)


def _empty_spool(settings: Settings, catalogue: Catalogue) -> int:
    """Remove results of jobs that ended and were not retried for `keep_runs_days`."""
    if not settings.spool.is_dir():
        return 0
    removed = 0
    before = time.time() - settings.keep_runs_days * DAY_S
    for folder in settings.spool.iterdir():
        if not folder.is_dir() or folder.stat().st_mtime > before:
            continue
        try:
            check_job_id(folder.name)
        except Refused:
            continue  # none of ours
        try:
            over = catalogue.request(folder.name).state in ENDED
        except NotFound:
            over = True
        if over:
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("removed the spooled result of %s", folder.name)
            removed += 1
    return removed
