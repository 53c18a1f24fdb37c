"""What is remembered about one run of a server's process, told apart by its `/app_id`.

Kept in this process for all sessions, because a session lasts one job: pinning options and
recognising leaked task ids once a boot is enough. Losing it costs a repetition, nothing else.
"""

import time
from dataclasses import dataclass, field

_MOST_BOOTS = 64

LATE_ROUTES_S = 10.0
"""HTTP opens before all routes exist; a 404 in this time means "not ready yet"."""


@dataclass
class Boot:
    """One run of a server's process.

    Attributes:
        id: Its `app_id`; empty with `--nowebui`, where there is none.
        pinned: Option keys made present in its memory, so that overrides of them are undone.
        leaked: Task ids that stay in its waiting list although nothing will run them.
        version: As its results tell it; empty before the first.
    """

    id: str
    pinned: set[str] = field(default_factory=set[str])
    leaked: set[str] = field(default_factory=set[str])
    version: str = ""
    _missing_since: dict[str, float] = field(default_factory=dict[str, float])

    def missing(self, path: str) -> bool:
        """Note a 404 of `path`; whether it has lasted too long for a server that is starting."""
        now = time.monotonic()
        return now - self._missing_since.setdefault(path, now) >= LATE_ROUTES_S

    def found(self, path: str) -> None:
        """Note that `path` exists."""
        self._missing_since.pop(path, None)


_boots: dict[tuple[str, str], Boot] = {}


def boot_of(base_url: str, app_id: str) -> Boot:
    """Return what is remembered; without an `app_id` nothing is, beyond the session."""
    if not app_id:
        return Boot("")
    key = (base_url, app_id)
    boot = _boots.get(key)
    if boot is None:
        while len(_boots) >= _MOST_BOOTS:
            _boots.pop(next(iter(_boots)))
        boot = _boots[key] = Boot(app_id)
    return boot
