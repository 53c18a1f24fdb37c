"""Downloads that are flow runs of `fetch-model`: which there are, how far, and cancelling them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from stablequeue.errors import NotFound, Refused
from stablequeue.prefect_api import ACTIVE, PrefectApi, Run, StateType, run_filter
from stablequeue.servers import DOWNLOADS

_WAITING = (StateType.SCHEDULED, StateType.PAUSED)
_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
_SHORTEST_ID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloading:
    """One download as a flow run.

    Attributes:
        run_id: Prefect's id.
        state: As Prefect shows it.
        message: Beside it: how far, or why not.
        progress: From 0 to 1; None: not known.
        size: Bytes of the file; 0: not known.
    """

    run_id: str
    name: str
    source: str
    state: str
    message: str
    progress: float | None
    size: int
    ended: bool
    started: datetime | None
    finished: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "source": self.source,
            "state": self.state,
            "message": self.message,
            "progress": self.progress,
            "size": self.size,
            "ended": self.ended,
            "started": self.started,
            "finished": self.finished,
        }


def downloads(api: PrefectApi, *, ended: bool = False, limit: int = 50) -> list[Downloading]:
    """Return downloads: running ones, waiting ones, and if wished those that ended.

    Raises:
        PrefectUnreachable: Retryable.
    """
    found: list[Run] = []
    for states in (tuple(ACTIVE), _WAITING, _ENDED if ended else ()):
        if states and len(found) < limit:
            filters = run_filter(deployments=[DOWNLOADS], states=list(states))
            found += api.runs(filters, limit=limit - len(found))
    return [_seen(api, run) for run in found]


def cancel(api: PrefectApi, run_id: str) -> str:
    """Cancel a download; what came so far is removed by its run. Return its whole id.

    Args:
        api: Prefect's API.
        run_id: Or its first digits, of a download that has not ended.

    Raises:
        NotFound: No download that goes on has this id.
        Refused: Several have; or it has ended meanwhile.
    """
    wanted = run_id.strip().casefold()
    going = api.runs(run_filter(deployments=[DOWNLOADS], states=[*ACTIVE, *_WAITING]))
    fitting = [run for run in going if run.id.startswith(wanted)]
    if len(wanted) < _SHORTEST_ID or not fitting:
        raise NotFound(f"no download {run_id[:50]!r} goes on; see: stablequeue models downloads")
    if len(fitting) > 1:
        raise Refused(f"{run_id!r} fits {len(fitting)} downloads; give more digits")
    change = api.cancel(fitting[0].id)
    if not change.accepted and change.state_type not in {
        StateType.CANCELLED,
        StateType.CANCELLING,
    }:
        raise Refused(f"download {fitting[0].id} is {change.state_name.lower()} already")
    return fitting[0].id


def _seen(api: PrefectApi, run: Run) -> Downloading:
    offer = _mapping(run.parameters.get("offer"))
    target = _mapping(run.parameters.get("target"))
    return Downloading(
        run_id=run.id,
        name=str(target.get("name") or offer.get("name") or run.name),
        source=str(offer.get("source") or ""),
        state=run.state_name,
        message=run.state_message,
        progress=_progress(api, run),
        size=int(size) if isinstance(size := offer.get("size"), int) else 0,
        ended=run.final,
        started=run.started,
        finished=run.ended,
    )


def _progress(api: PrefectApi, run: Run) -> float | None:
    """Return how far a running download is, by its progress artifact (0 to 100)."""
    if run.state_type is StateType.COMPLETED:
        return 1.0
    if run.state_type not in ACTIVE:
        return None
    for artifact in api.artifacts(run.id):
        if artifact.type == "progress":
            data: Any = artifact.data
            if isinstance(data, str | int | float) and not isinstance(data, bool):
                return _share(data)
    return None


def _share(data: str | float) -> float | None:
    try:
        return min(max(float(data) / 100, 0.0), 1.0)
    except ValueError:
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
