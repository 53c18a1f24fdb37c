"""What must be true when it is over, looked at from outside: files, catalogue, cards, Prefect."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image

from stablequeue.catalogue import Attempt, AttemptState, JobState
from stablequeue.ids import derived_seed, remote_key
from stablequeue.prefect_api import ACTIVE, StateType, run_filter
from stablequeue.sandbox.card import Generation, GraphicsCard
from tests.chaos.place import Place
from tests.chaos.trouble import Death
from tests.support.waiting import wait_until

_WRITTEN_WITHIN_S = 30.0
"""Prefect hears of a run's end a moment after the catalogue."""


def wrong_jobs(place: Place, job_ids: Sequence[str]) -> list[str]:
    """Return a line for each job that did not end as Completed."""
    outcomes = place.catalogue.outcomes(job_ids)
    return [
        f"{job_id}: {outcome.state.value if outcome else 'no end'}"
        f" {outcome.message if outcome else ''}"
        for job_id in job_ids
        if (outcome := outcomes.get(job_id)) is None or outcome.state is not JobState.COMPLETED
    ]


def wrong_pictures(place: Place, counts: Mapping[str, int]) -> list[str]:
    """Return a line for each job whose pictures are not stored once, whole, with their seeds."""
    wrong: list[str] = []
    keys: Counter[str] = Counter()
    for job_id, count in counts.items():
        pictures = place.client.pictures(job_id)
        if [picture.asset.index for picture in pictures] != list(range(count)):
            wrong.append(f"{job_id}: {[picture.asset.index for picture in pictures]} of {count}")
        for picture in pictures:
            keys[picture.path] += 1
            seed = derived_seed(job_id) + picture.asset.index
            if picture.asset.seed != seed:
                wrong.append(f"{job_id}: seed {picture.asset.seed}, not {seed}")
            if not _says(Path(picture.path), str(seed)):
                wrong.append(f"{job_id}: {picture.path} does not tell the seed {seed}")
    wrong += [f"{path} belongs to {number} pictures" for path, number in keys.items() if number > 1]
    return wrong


def _says(path: Path, seed: str) -> bool:
    with Image.open(path) as picture:
        picture.load()
        return any(seed in str(value) for value in picture.info.values())


def made_twice(
    place: Place, counts: Mapping[str, int], deaths: Iterable[Death]
) -> tuple[list[str], int]:
    """Return a line for each generation too many, and how many repeats an engine's death excuses.

    An engine that died has forgotten what it worked on and what it had made; then, and only then,
    a picture may be made again, as a new attempt.
    """
    wrong: list[str] = []
    excused = 0
    by_label: dict[str, list[Generation]] = {}
    for card in place.cards.values():
        for generation in card.generations:
            by_label.setdefault(generation.label, []).append(generation)
    known: set[str] = set()
    for job_id, count in counts.items():
        attempts = place.catalogue.attempts(job_id)
        for index in range(count):
            mine = [attempt for attempt in attempts if attempt.index == index]
            made: list[Generation] = []
            for attempt in mine:
                label = str(remote_key(job_id, index, attempt.attempt))
                known.add(label)
                again = by_label.get(label, [])
                if len(again) > 1:
                    wrong.append(f"{job_id}/{index}/{attempt.attempt}: made {len(again)} times")
                made += again
            made.sort(key=lambda generation: generation.started)
            for before, after in pairwise(made):
                if _died_between(deaths, before, after):
                    excused += 1
                else:
                    story = ", ".join(map(_told, mine))
                    wrong.append(f"{job_id}/{index}: made again without need ({story})")
            stored = [attempt for attempt in mine if attempt.state is AttemptState.STORED]
            if len(stored) != 1 or not made:
                wrong.append(f"{job_id}/{index}: {', '.join(map(_told, mine))}")
    wrong += [f"{label} is no attempt of ours" for label in by_label if label not in known]
    return wrong, excused


def _died_between(deaths: Iterable[Death], before: Generation, after: Generation) -> bool:
    server = before.owner.partition("/")[0]
    return any(
        death.server == server and before.started <= death.at <= after.started for death in deaths
    )


def _told(attempt: Attempt) -> str:
    return f"{attempt.server} {attempt.attempt} {attempt.state.value} {attempt.note}".strip()


def at_once(card: GraphicsCard) -> list[str]:
    """Return a line for each two generations that overlapped in time on a card."""
    wrong: list[str] = []
    ordered = sorted(card.generations, key=lambda generation: generation.started)
    for before, after in pairwise(ordered):
        if before.ended is None or before.ended > after.started:
            wrong.append(f"{before.owner} {before.label} and {after.owner} {after.label}")
    if card.most_at_once > 1:
        wrong.append(f"{card.most_at_once} at once")
    return wrong


def nothing_active(place: Place, job_ids: Sequence[str]) -> None:
    """Wait until no run is RUNNING, PENDING or CANCELLING, and none of these jobs waits."""
    api = place.client.session.api
    filters = [
        run_filter(states=ACTIVE),
        run_filter(states={StateType.SCHEDULED}, idempotency_keys=job_ids),
    ]

    def none_left() -> bool:
        return not any(api.count_runs(one) for one in filters)

    try:
        wait_until(none_left, timeout_s=_WRITTEN_WITHIN_S, every_s=0.3, why="no run is left")
    finally:
        for run in [run for one in filters for run in api.runs(one)]:
            print(f"left: {run.id} {run.state_name} {run.state_message}")  # noqa: T201


def overlapped(first: Iterable[Generation], second: Iterable[Generation]) -> bool:
    """Whether two cards were ever busy at the same time."""
    others = list(second)
    return any(
        one.started < (other.ended or one.started) and other.started < (one.ended or other.started)
        for one in first
        for other in others
    )
