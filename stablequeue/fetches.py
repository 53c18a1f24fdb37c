"""Downloads of model files as flow runs: asked for once, however many jobs wait for the same file.

A file is known by its SHA-256, else by what names it at its source. Its run has that as idempotency
key and as tag; the runs of waiting jobs have the tag too, so that the download finds them. A run's
queue cannot change once it exists, but its tier's tag can, and that decides in our workers.
"""

import hashlib
import logging
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Self, cast

from stablequeue.errors import NotFound
from stablequeue.models.kinds import ModelType
from stablequeue.models.sources.offer import Offer
from stablequeue.prefect_api import NewRun, PrefectApi, Run, StateType, run_filter
from stablequeue.prefect_api.parallel import each
from stablequeue.servers import DOWNLOADS
from stablequeue.views import TIERS, due
from stablequeue.wanting import WAITING

logger = logging.getLogger("stablequeue.models")

DEPLOYMENT = f"fetch-model/{DOWNLOADS}"

GIVEN_UP = "Cannot be fetched"
"""Last state of a download before it ends as Failed; its message says why."""

FETCHED = "Fetched"
"""State of a download whose file is there, while those who wait are told."""

LOOK_AGAIN = timedelta(minutes=4)
"""A waiting job looks by itself after this time, in case nobody told it."""

MOST_TOLD = 20
"""Waiting jobs whose messages follow the download's progress; each message is a row in Prefect."""

FILE_TAG = "model:"
RUN_TAG = "fetch:"
HOST_TAG = "host:"
"""Begins the tag of a download that only the workers of one host may take."""

_SOON = timedelta(seconds=20)
_KEPT_TEXT = 20_000
_KEPT_PICTURES = 4


@dataclass(frozen=True, slots=True)
class Target:
    """Where in the library a file goes.

    Attributes:
        kind: Type of the folder.
        root: The folder.
        name: Relative to it.
        host: The one whose folder that is; empty: whichever fetches, since all share it.
    """

    kind: ModelType
    root: Path
    name: str
    host: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain JSON data."""
        told = {"kind": self.kind.value, "root": str(self.root), "name": self.name}
        return {**told, "host": self.host} if self.host else told

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is something else (also KeyError).
        """
        kind, root = ModelType(str(data["kind"])), Path(str(data["root"]))
        return cls(kind, root, str(data["name"]), str(data.get("host") or ""))


def file_key(offer: Offer, host: str = "") -> str:
    """Return what is the same for all who want this file, on a host of its own or on any."""
    text = f"sha256:{offer.sha256}" if offer.sha256 else offer.ident
    text = f"{text}@{host}" if host else text
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def ask(api: PrefectApi, offer: Offer, target: Target, tier: str) -> Run:
    """Return the run that fetches a file: one that is under way, or a new one.

    Raises:
        NotFound: There is no deployment for downloads (yet).
        PrefectUnreachable: Retryable.
    """
    key = file_key(offer, target.host)
    deployment = api.deployment(DEPLOYMENT)
    tag = f"{FILE_TAG}{key}"
    host = (f"{HOST_TAG}{target.host}",) if target.host else ()
    earlier = [run for run in downloads_of(api, offer, target.host) if run.final]
    for number in range(len(earlier) + 1, len(earlier) + 100):
        new = NewRun(
            parameters={"offer": trimmed(offer).to_json(), "target": target.to_json()},
            idempotency_key=f"{key}/{number}",
            name=f"{target.name} · {offer.source}",
            tags=(tag, f"tier:{tier}", f"source:{offer.source}", *host),
            queue=tier,
        )
        run = api.create_run(deployment, new)
        if not run.final:
            if not run.was_new:
                _lift(api, run, tier)
            return run
    message = f"there are too many downloads of {target.name}; look at them in Prefect's pages"
    raise NotFound(message)


def is_for_host(tags: Collection[str]) -> bool:
    """Whether a worker of this host may take a download with these tags."""
    hosts = [tag.removeprefix(HOST_TAG) for tag in tags if tag.startswith(HOST_TAG)]
    return not hosts or socket.gethostname() in hosts


def fetched_to(api: PrefectApi, offer: Offer, host: str = "") -> Path | None:
    """Return where an earlier download put a file whose hash its source does not tell.

    None: there was none, or Prefect has forgotten it.
    """
    for run in downloads_of(api, offer, host):
        if run.state_type is StateType.COMPLETED or run.state_name == FETCHED:
            with suppress(KeyError, TypeError, ValueError):
                target = Target.from_json(run.parameters["target"])
                return target.root / target.name
    return None


def moved(api: PrefectApi, run_id: str, name: str) -> None:
    """Note that a download puts its file under another name of the same folder."""
    run = api.read_run(run_id)
    target = {**run.parameters["target"], "name": name}
    api.patch_run(run_id, parameters={**run.parameters, "target": target})


def other_name(name: str, offer: Offer) -> str:
    """Return the name for a file whose own name another file has."""
    plain, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    return f"{plain}-{(offer.sha256 or file_key(offer))[:8]}{suffix}"


def trimmed(offer: Offer) -> Offer:
    """Return an offer small enough for a run's parameters: no generation data of pictures."""
    found = offer.facts.get("version")
    if not isinstance(found, dict):
        return offer
    version = cast("Mapping[str, Any]", found)
    kept: dict[str, Any] = {
        name: value[:_KEPT_TEXT] if isinstance(value, str) else value
        for name, value in version.items()
    }
    pictures = version.get("images")
    if isinstance(pictures, list):
        kept["images"] = [_picture(one) for one in cast("list[Any]", pictures)[:_KEPT_PICTURES]]
    return replace(offer, facts={**offer.facts, "version": kept})


def _picture(picture: Any) -> Any:
    if not isinstance(picture, dict):
        return {}
    names = ("url", "type", "nsfwLevel", "width", "height")
    told = cast("Mapping[str, Any]", picture)
    return {name: told[name] for name in names if name in told}


def waiters(api: PrefectApi, key: str) -> list[Run]:
    """Return the runs of jobs that wait for a file, the next due first."""
    found = api.runs(
        run_filter(
            tags_all=[f"{FILE_TAG}{key}"], states=[StateType.SCHEDULED], state_names=[WAITING]
        )
    )
    return sorted(found, key=lambda run: (due(run) or datetime.max.replace(tzinfo=UTC), run.id))


def wake(api: PrefectApi, key: str, why: str) -> int:
    """Let everybody who waits for a file go on, each at its old place; return how many."""
    woken = waiters(api, key)
    each(woken, lambda run: _let_go_on(api, run, why))
    return len(woken)


def wake_left(api: PrefectApi) -> int:
    """Let jobs go on whose download is over and did not tell them; return how many.

    One that is cancelled while it waits, or deleted in Prefect's pages, tells nobody.
    """
    waiting = api.runs(run_filter(states=[StateType.SCHEDULED], state_names=[WAITING]))
    of = {run.id: _downloads(run) for run in waiting}
    wanted = {one for downloads in of.values() for one in downloads}
    if not wanted:
        return 0
    live = {run.id for run in api.runs(run_filter(ids=wanted)) if not run.final}
    left = [run for run in waiting if of[run.id] - live]
    each(left, lambda run: _let_go_on(api, run, "its download is over"))
    return len(left)


def tell(api: PrefectApi, key: str, message: str) -> None:
    """Have those who wait for a file say how far it is; not more of them than a few."""
    now = datetime.now(UTC)
    for run in waiters(api, key)[:MOST_TOLD]:
        when = due(run)
        if when is None or when < now + _SOON or run.state_message == message:
            continue  # it is about to look by itself
        with suppress(NotFound):
            api.set_state(
                run.id,
                StateType.SCHEDULED,
                WAITING,
                message=message,
                scheduled_time=now + LOOK_AGAIN,
            )
            _unless_cancelled(api, run)


def _let_go_on(api: PrefectApi, run: Run, why: str) -> None:
    with suppress(NotFound):
        place = run.expected_start or run.created
        api.reschedule(run.id, "Queued", message=why, scheduled_time=place)
        _unless_cancelled(api, run)


def _downloads(run: Run) -> set[str]:
    return {tag.removeprefix(RUN_TAG) for tag in run.tags if tag.startswith(RUN_TAG)}


def _unless_cancelled(api: PrefectApi, run: Run) -> None:
    """Cancel a run again that was cancelled between our look and our change of its state."""
    states: Sequence[Mapping[str, Any]] = api.call("GET", f"flow_run_states/?flow_run_id={run.id}")
    before = states[-2]["type"] if len(states) > 1 else ""
    if before in {StateType.CANCELLED, StateType.CANCELLING}:
        logger.info("run %s was cancelled meanwhile, and stays so", run.id)
        api.cancel(run.id)


def downloads_of(api: PrefectApi, offer: Offer, host: str = "") -> list[Run]:
    """Return all downloads of a file that Prefect knows of, the last asked for first."""
    key = file_key(offer, host)
    found = api.runs(run_filter(tags_all=[f"{FILE_TAG}{key}"], deployments=[DOWNLOADS]))
    return sorted(found, key=lambda run: _number(run.idempotency_key), reverse=True)


def _number(idempotency_key: str) -> int:
    number = idempotency_key.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _lift(api: PrefectApi, run: Run, tier: str) -> None:
    """Give a run the tier of somebody who wants it more; workers read it before they choose."""
    has = next((tag.removeprefix("tier:") for tag in run.tags if tag.startswith("tier:")), "bulk")
    if has not in TIERS or TIERS.index(tier) < TIERS.index(has):
        others = [tag for tag in run.tags if not tag.startswith("tier:")]
        api.patch_run(run.id, tags=[*others, f"tier:{tier}"])
