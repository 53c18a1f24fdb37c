"""Whether the code a process has loaded is still the code on disk."""

import sys
import sysconfig
from pathlib import Path

_NOT_OURS = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


class CodeSeen:
    """The files of this process's modules as they are now, libraries left out.

    An installed StableQueue is a library too; its files change by an upgrade, after which people
    start it anew.
    """

    def __init__(self) -> None:
        self._seen = {path: _stamp(path) for path in _own_files()}

    def note(self) -> None:
        """Take in modules that were imported since."""
        for path in _own_files():
            self._seen.setdefault(path, _stamp(path))

    def changed(self) -> bool:
        """Whether any of the files changed or went; a stat a file, about 1 ms in all."""
        return any(_stamp(path) != stamp for path, stamp in self._seen.items())


def _own_files() -> set[str]:
    files: set[str] = set()
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and path.endswith(".py") and not path.startswith(_NOT_OURS):
            files.add(path)
    return files


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size)
