"""Which waiting run a server takes next. Pure: the same arguments give the same answer.

Tiers come strictly before one another. Within a tier runs are taken as they stand, except that
runs whose checkpoint is loaded may overtake others, each of which at most `MOST_OVERTAKINGS` times.
"""

from collections.abc import Iterable
from dataclasses import replace

from stablequeue.worker.waiting import MOST_OVERTAKINGS, Card, Pick, Ranked, Waiting


def pick(waiting: Iterable[Waiting], card: Card) -> Pick | None:
    """Return the run that a server with this card takes next.

    The caller raises `overtaken` of every run in `Pick.overtakes` by one when the run has started.

    Args:
        waiting: Runs this server can take, in any order.
        card: Its card.

    Returns:
        The choice; nothing if nothing waits.
    """
    runs = list(waiting)
    if not runs:
        return None
    tier = min(run.tier for run in runs)
    return _pick(sorted((run for run in runs if run.tier == tier), key=_standing), card)


def order(waiting: Iterable[Waiting], card: Card, limit: int | None = None) -> list[Ranked]:
    """Return the runs in the order in which this card alone would take them.

    Args:
        waiting: Runs this server can take, in any order.
        card: Its card.
        limit: Only the first so many; all of them if not given.
    """
    left = sorted(waiting, key=_standing)
    ranked: list[Ranked] = []
    given = {run.run_id: run for run in left}
    while left and (limit is None or len(ranked) < limit):
        size = next((n for n, run in enumerate(left) if run.tier != left[0].tier), len(left))
        picked = _pick(left[:size], card)
        taken = len(picked.overtakes)
        loads = bool(picked.run.checkpoint) and picked.run.checkpoint not in card.loaded
        ranked.append(Ranked(given[picked.run.run_id], picked.reason, loads))
        left[:taken] = [replace(run, overtaken=run.overtaken + 1) for run in left[:taken]]
        del left[taken]
        card = replace(card, loaded=card.used(picked.run.checkpoint))
    return ranked


def _standing(run: Waiting) -> tuple[int, bool, float, float, str]:
    return run.standing


def _pick(runs: list[Waiting], card: Card) -> Pick:
    """Return the choice among the runs of one tier, sorted as they stand."""
    head = runs[0]
    if head.pinned:
        return Pick(head, "moved to the front")
    if not head.checkpoint or head.checkpoint in card.loaded:
        return Pick(head, "next in line")
    for place, run in enumerate(runs):
        if run.checkpoint in card.loaded:
            overtaken = tuple(other.run_id for other in runs[:place])
            return Pick(run, "its checkpoint is loaded", overtaken)
        if run.overtaken >= MOST_OVERTAKINGS:
            return Pick(head, f"runs have been overtaken {MOST_OVERTAKINGS} times")
    return Pick(head, "next in line")
