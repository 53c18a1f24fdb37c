"""Faults to inject: plain data, kept apart from the protocols that suffer them.

A server asks at each *place* whether something strikes there. Places are text:

* HTTP: `POST /prompt` before the request is worked on and `after POST /prompt` when it has been,
  but nothing of the answer has been sent. ComfyUI's `/api` twins count as the bare path.
* generation: `start`, `load`, `step 1` (about to be done), ..., `decode`, `save`, `end`.

`Fault.where` is a pattern for these (`*` and `?` as in file names; empty: everywhere).
"""

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any


class FaultKind(StrEnum):
    """What goes wrong. The first five strike HTTP requests, `DIE` both, the rest generations."""

    CLOSE = "close"  # the connection ends without an answer
    CUT = "cut"  # the connection ends in the middle of the answer
    DELAY = "delay"  # the answer is `seconds` late
    STATUS = (
        "status"  # answered with `status` and `body`; the request is not worked on, unless after
    )
    HANG = "hang"  # never answered, the connection stays open (until the fault is cleared)
    DIE = "die"  # the server is gone at once, as after SIGKILL
    SLOW = "slow"  # each step takes `seconds`
    STALL = "stall"  # no progress for `seconds` (0: until the fault is cleared)
    DROP_SOCKET = "drop_socket"  # every WebSocket is cut
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"  # the generation raises `body`
    WRONG_MODEL = "wrong_model"  # painted with another model than asked, without a word
    PARTIAL = "partial"  # fewer pictures than asked
    INTERRUPT = "interrupt"  # somebody else presses the button
    LOSE_RESULT = "lose_result"  # the file is gone after it was written
    LOSE_INTERRUPT = "lose_interrupt"  # an interrupt is accepted and forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: What.
        where: Pattern for the place; empty: any.
        protocol: `comfyui` or `forge`; empty: both.
        after: How many matching places are spared first.
        times: How often it strikes then; -1: always.
        seconds: For DELAY, SLOW and STALL.
        status: For STATUS.
        body: For STATUS and ERROR; for WRONG_MODEL the model that is used instead.
    """

    kind: FaultKind
    where: str = ""
    protocol: str = ""
    after: int = 0
    times: int = 1
    seconds: float = 0.0
    status: int = 500
    body: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Fault":
        """Read a fault from plain JSON.

        Raises:
            ValueError: A field is unknown or has a wrong value.
        """
        types = {f.name: f.type for f in fields(cls)}
        unknown = sorted(set(data) - set(types))
        if unknown:
            message = f"a fault has no {', '.join(unknown)}; its fields are {', '.join(types)}"
            raise ValueError(message)
        kind = str(data.get("kind", ""))
        if kind not in set(FaultKind):
            message = f"there is no fault {kind!r}; there are {', '.join(FaultKind)}"
            raise ValueError(message)
        try:
            return cls(
                kind=FaultKind(kind),
                where=str(data.get("where", "")),
                protocol=str(data.get("protocol", "")),
                after=int(data.get("after", 0)),
                times=int(data.get("times", 1)),
                seconds=float(data.get("seconds", 0.0)),
                status=int(data.get("status", 500)),
                body=str(data.get("body", "")),
            )
        except TypeError as error:
            message = "a fault needs numbers where numbers belong"
            raise ValueError(message) from error

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    def covers(self, place: str, protocol: str) -> bool:
        """Say whether this fault is meant for `place` of `protocol`."""
        if self.protocol and protocol and self.protocol != protocol:
            return False
        return not self.where or fnmatchcase(place, self.where)


@dataclass
class _Armed:
    fault: Fault
    seen: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return 0 <= self.fault.times <= self.struck


@dataclass
class Faults:
    """The faults in force, and which have struck. Safe to use from any thread.

    Attributes:
        struck: Every strike so far, as (kind, place), in order.
    """

    struck: list[tuple[FaultKind, str]] = field(default_factory=list[tuple[FaultKind, str]])
    _armed: list[_Armed] = field(default_factory=list[_Armed], repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, kind: FaultKind | str, where: str = "", **options: Any) -> Fault:
        """Arm a fault; `options` are `Fault`'s other fields."""
        fault = Fault.from_json({"kind": kind, "where": where, **options})
        self.arm(fault)
        return fault

    def arm(self, fault: Fault) -> None:
        """Arm a fault."""
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self, kind: FaultKind | str | None = None) -> None:
        """Disarm all faults, or those of one kind; what stalls or hangs because of them goes on."""
        with self._lock:
            self._armed = [a for a in self._armed if kind is not None and a.fault.kind != kind]

    def take(self, kind: FaultKind, place: str, protocol: str = "") -> Fault | None:
        """Return the fault of `kind` that strikes at `place` now, and count it; or None."""
        with self._lock:
            for armed in self._armed:
                if armed.fault.kind != kind or armed.spent:
                    continue
                if not armed.fault.covers(place, protocol):
                    continue
                armed.seen += 1
                if armed.seen > armed.fault.after:
                    armed.struck += 1
                    self.struck.append((kind, place))
                    return armed.fault
        return None

    def may_strike(self, kind: FaultKind, place: str, protocol: str = "") -> bool:
        """Say whether a fault of `kind` covers `place`, without counting."""
        with self._lock:
            return any(
                a.fault.kind == kind and not a.spent and a.fault.covers(place, protocol)
                for a in self._armed
            )

    def in_force(self, fault: Fault) -> bool:
        """Say whether `fault` has not been cleared, spent or not."""
        with self._lock:
            return any(a.fault is fault for a in self._armed)

    def listed(self) -> list[Fault]:
        """Return the faults that can still strike."""
        with self._lock:
            return [a.fault for a in self._armed if not a.spent]
