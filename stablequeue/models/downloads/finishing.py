"""The end of a download: is it the right file, and how it gets its name."""

import contextlib
import errno
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from stablequeue.errors import DiskFull, TargetTaken, WrongBytes
from stablequeue.models.downloads.checking import HEAD, check_head
from stablequeue.models.downloads.parts import Part
from stablequeue.models.sources.offer import Offer
from stablequeue.storage.hashing import file_sha256

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {
    errno.EPERM,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EMLINK,
    errno.EINVAL,
    errno.EXDEV,
    errno.EACCES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """A file that is there now.

    Attributes:
        path: Its name.
        size: Bytes.
        sha256: Lower case hex.
        fetched: False: it was there already.
    """

    path: Path
    size: int
    sha256: str
    fetched: bool


def verify(offer: Offer, part: Part, size: int, sha256: str) -> None:
    """Compare a finished part file with what was promised.

    Raises:
        NotAModelFile: Its first bytes are not those of such a file.
        WrongBytes: Size or SHA-256 differ.
    """
    with part.path.open("rb") as stream:
        head = stream.read(HEAD)
    check_head(offer.source, offer.name, head, size)
    if offer.size and size != offer.size:
        raise WrongBytes(offer.source, f"{offer.size} bytes were promised, {size} came")
    if offer.sha256 and sha256 != offer.sha256:
        raise WrongBytes(
            offer.source,
            f"the file has the SHA-256 {sha256[:10]}..., not the promised {offer.sha256[:10]}...;"
            " it was replaced or damaged there, and nothing was kept",
        )


def already(offer: Offer, target: Path) -> Downloaded | None:
    """Return the file that has the name already, if it is the one that is wanted.

    Raises:
        TargetTaken: It is another one.
    """
    try:
        size = target.stat().st_size
    except FileNotFoundError:
        return None
    if target.is_file() and size == (offer.size or size):
        sha256 = file_sha256(target)
        # With neither size nor hash promised nobody can tell; a user's file is not replaced.
        if sha256 == offer.sha256 or (not offer.sha256 and offer.size):
            return Downloaded(path=target, size=size, sha256=sha256, fetched=False)
    raise TargetTaken(
        offer.source, f"another file is called {target.name} there; rename or remove it first"
    )


def give_name(source: str, part: Part, target: Path) -> None:
    """Give the part file its name, which nobody else may have taken meanwhile."""
    try:
        os.link(part.path, target)
    except FileExistsError as error:
        raise TargetTaken(
            source, f"meanwhile another file was called {target.name}; remove it first"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():  # pragma: no cover - needs a file system without hard links
            raise TargetTaken(source, f"{target.name} exists already") from error
        part.path.replace(target)
    else:
        part.path.unlink(missing_ok=True)
    part.forget()
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk, where folders can be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def faults(source: str, target: Path) -> Generator[None]:
    """Translate what the file system says.

    Raises:
        DiskFull: No room left.
        TargetTaken: The target cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                source, f"the disk of {target.parent} is full; make room and try again"
            ) from error
        raise TargetTaken(
            source, f"cannot write {target}: {error.strerror or error}; check the folder's rights"
        ) from error
