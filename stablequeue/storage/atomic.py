"""Files that appear whole or not at all, for what can be made again and may be replaced."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def appearing(target: Path) -> Generator[Path]:
    """Yield a temporary path beside `target`; it becomes `target` when the block ends well.

    The folder is made. Nothing is flushed to the disk: after a power cut the file may be missing
    or empty, so this is not for what exists only once.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{uuid4().hex}{target.suffix}"
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
