"""Answers of an API kept in a folder, so that scanning a library does not ask the same twice.

Found things are used unasked for a while, then asked for again with their ETag. What was not found
is believed for a while only: it may have been unpublished for an hour, or be another host's. A
cache that cannot be read or written is as good as empty.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stablequeue.storage.atomic import appearing


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """One answer.

    Attributes:
        found: False: there is no such thing.
        data: JSON of the answer; None if not found.
        base: Base URL that answered; its ETag means nothing to another.
        etag: As the server gave it; empty: none.
        stored: Seconds since the epoch.
    """

    found: bool
    data: Any
    base: str
    etag: str
    stored: float


class AnswerCache:
    """A folder of answers, one file each.

    Args:
        folder: Made when first written.
        found_s: How long an answer is fresh.
        missing_s: How long "not found" is.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        *,
        found_s: float,
        missing_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._found_s, self._missing_s, self._now = folder, found_s, missing_s, now

    def get(self, key: str) -> Cached | None:
        """Return what is known; None: nothing, or "not found" of too long ago."""
        try:
            data = json.loads(self._path(key).read_bytes())
            if data.pop("key") != key:
                return None
            found = Cached(**data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return found if found.found or self.fresh(found) else None

    def fresh(self, cached: Cached) -> bool:
        """Whether an answer may be used unasked."""
        age = self._now() - cached.stored
        return 0 <= age < (self._found_s if cached.found else self._missing_s)

    def put(self, key: str, data: Any, *, base: str, etag: str = "", found: bool = True) -> Cached:
        """Keep an answer and return it; the same one again becomes fresh again."""
        cached = Cached(found=found, data=data, base=base, etag=etag, stored=self._now())
        text = json.dumps({"key": key, **asdict(cached)})
        with contextlib.suppress(OSError), appearing(self._path(key)) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return cached

    def clear(self) -> int:
        """Forget everything; return how many answers that were."""
        count = 0
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError):
                path.unlink()
                count += 1
        return count

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
