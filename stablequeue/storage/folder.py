"""A folder as a store: whole files only, nothing ever overwritten, several processes at once.

Bytes are written to a temporary file beside the target, flushed to the disk, and then given their
name by a hard link, which fails if the name is taken: so a name either does not exist or has all of
its bytes, and of two processes that want one name exactly one gets it. File systems without hard
links (exFAT, some network shares) get the same by an exclusively created empty file that is then
replaced.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from stablequeue.errors import NotFound, StoreError, StoreUnavailable, UnsafeName
from stablequeue.storage.base import MEBIBYTE, FolderStoreConfig, StoredBlob
from stablequeue.storage.hashing import BLOCK, file_sha256
from stablequeue.storage.naming import check_key, numbered

_TEMPORARY = ".stablequeue-"  # keys never begin with a dot
_NAMES_TRIED = 1000
_FOLDERS_TRIED = 20
_LEFTOVER_AFTER_S = 24 * 3600.0

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM}
_ABSENT = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}
_NO_LINKS = {
    errno.EPERM,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EMLINK,
    errno.EINVAL,
    errno.EXDEV,
}


class FolderStore:
    """Pictures below one folder; safe to use from several threads and processes."""

    def __init__(self, config: FolderStoreConfig) -> None:
        self._config = config
        self._folder = Path(os.path.abspath(config.folder.expanduser()))  # noqa: PTH100 - keep links

    @property
    def name(self) -> str:
        """Name of the store."""
        return self._config.name

    def put(self, source: Path, key: str, *, sha256: str, mime: str) -> StoredBlob:  # noqa: ARG002
        """See `Store.put`; the file's type shows in its suffix only."""
        check_key(self.name, key)
        try:
            size = source.stat().st_size
        except OSError as error:
            raise _source_gone(source, error) from error
        with self._faults():
            self._make_root()
            free, done = self._free_key(key, sha256, size)
            if done:
                return self._blob(free, sha256, size, written=False)
            self._check_space(size)
            temporary = self._write_beside(self._path(free), source, sha256)
            try:
                while not _name_new(temporary, self._path(free)):
                    # Somebody else took the name between our look and now.
                    free, done = self._free_key(key, sha256, size)
                    if done:
                        return self._blob(free, sha256, size, written=False)
                _flush_folder(temporary.parent)
            finally:
                temporary.unlink(missing_ok=True)
        return self._blob(free, sha256, size, written=True)

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        with self._faults():
            path = self._path(key)
            try:
                return path.open("rb")
            except (FileNotFoundError, IsADirectoryError) as error:
                raise self._not_found(key) from error

    def exists(self, key: str, *, sha256: str = "") -> bool:
        """See `Store.exists`; with `sha256` the whole file is read."""
        with self._faults():
            path = self._path(key)
            if not path.is_file():
                return False
            return not sha256 or file_sha256(path) == sha256

    def delete(self, key: str) -> None:
        """See `Store.delete`; folders that become empty go too."""
        with self._faults():
            path = self._path(key)
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._folder:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or already gone: both are fine
                    break

    def check(self) -> None:
        """See `Store.check`."""
        content = uuid4().hex.encode("ascii")
        with self._faults():
            self._make_root()
            self._check_space(len(content))
            path = self._folder / f"{_TEMPORARY}check-{uuid4().hex}"
            try:
                _write_new(path, content)
                if path.read_bytes() != content:
                    raise StoreUnavailable(
                        self.name, f"{self._folder} gave other bytes back; test that disk"
                    )
            finally:
                path.unlink(missing_ok=True)

    def locate(self, key: str) -> str:
        """See `Store.locate`."""
        return str(self._path(key))

    def remove_leftovers(self, *, older_than_s: float = _LEFTOVER_AFTER_S) -> int:
        """Remove temporary files of processes that died while storing; return how many.

        Args:
            older_than_s: Seconds since their last change, by the system's clock; long enough that
                nobody still writes them.
        """
        before = time.time() - older_than_s
        removed = 0
        with self._faults():
            for path in self._folder.glob(f"**/{_TEMPORARY}*"):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_mtime < before:
                        path.unlink()
                        removed += 1
        return removed

    def _path(self, key: str) -> Path:
        path = self._folder.joinpath(*check_key(self.name, key))
        root, parent = self._folder.resolve(), path.parent.resolve()
        if path.is_symlink() or not parent.is_relative_to(root):
            raise UnsafeName(
                self.name, f"{path} leads out of {self._folder} through a link; remove the link"
            )
        return path

    def _free_key(self, key: str, sha256: str, size: int) -> tuple[str, bool]:
        """Return the first key that is free or has these very bytes, and whether it has them."""
        for candidate in numbered(key, _NAMES_TRIED):
            path = self._path(candidate)
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                return candidate, False
            if path.is_file() and found == size and file_sha256(path) == sha256:
                return candidate, True
        raise StoreError(
            self.name, f"{_NAMES_TRIED} files are named like {key}; move some of them away"
        )

    def _write_beside(self, target: Path, source: Path, sha256: str) -> Path:
        temporary = target.parent / f"{_TEMPORARY}{uuid4().hex}"
        writer = self._create(temporary)
        try:
            with writer:
                found = _copy(source, writer)
                writer.flush()
                os.fsync(writer.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if found != sha256:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                self.name, f"{source.name} changed while it was being stored; try again"
            )
        return temporary

    def _create(self, path: Path) -> BinaryIO:
        """Open a new file, making its folder; `delete` may take an empty folder away meanwhile."""
        for _ in range(_FOLDERS_TRIED):
            self._make_folder(path.parent)
            try:
                return path.open("xb")
            except FileNotFoundError:
                continue
        return path.open("xb")

    def _make_root(self) -> None:
        if self._folder.is_dir():
            return
        if self._config.must_exist:
            raise StoreUnavailable(
                self.name, f"there is no folder {self._folder}. Is its disk or share mounted?"
            )
        self._make_folder(self._folder)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            _flush_folder(folder.parent)

    def _check_space(self, size: int) -> None:
        free = shutil.disk_usage(self._folder).free
        needed = size + self._config.keep_free_mib * MEBIBYTE
        if free < needed:
            raise StoreUnavailable(
                self.name,
                f"the disk of {self._folder} has {free // MEBIBYTE} MiB free and"
                f" {-(-needed // MEBIBYTE)} are needed. Free some space, or choose another folder.",
            )

    def _blob(self, key: str, sha256: str, size: int, *, written: bool) -> StoredBlob:
        return StoredBlob(store=self.name, key=key, sha256=sha256, size=size, written=written)

    def _not_found(self, key: str) -> NotFound:
        return NotFound(f"store {self.name}: there is no file {self._folder / key}")

    @contextmanager
    def _faults(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(self.name, _advice(self._folder, error)) from error


def _advice(folder: Path, error: OSError) -> str:
    if error.errno in _FULL:
        return f"the disk of {folder} is full. Free some space, or choose another folder."
    if error.errno in _DENIED:
        return f"no permission to write in {folder}. Correct its owner or its mode."
    if error.errno == errno.EROFS:
        return f"{folder} is on a disk mounted read-only. Mount it writable."
    if error.errno in _ABSENT:
        return f"{folder} cannot be reached ({error.strerror}). Is its disk or share mounted?"
    return f"{folder} failed: {error.strerror or type(error).__name__}. Look at that disk."


def _source_gone(source: Path, error: OSError) -> NotFound:
    return NotFound(f"{source.name} cannot be read before it is stored: {error.strerror}")


def _copy(source: Path, writer: BinaryIO) -> str:
    """Copy the file and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    try:
        reader = source.open("rb", buffering=0)
    except OSError as error:
        raise _source_gone(source, error) from error
    with reader:
        while block := reader.read(BLOCK):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def _name_new(temporary: Path, target: Path) -> bool:
    """Give the finished file its name; False when the name is taken."""
    try:
        if os.name == "nt":
            temporary.rename(target)  # there it refuses to replace
        else:
            os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    temporary.replace(target)
    return True


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make names in `folder` last through a power cut; Windows and some shares cannot."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
