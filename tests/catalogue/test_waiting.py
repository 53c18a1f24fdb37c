"""Accepting many jobs, and changing what has not begun."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from stablequeue.catalogue import Catalogue, JobState, NewJob, Outcome, StoredRequest
from stablequeue.catalogue.waiting import Asked
from stablequeue.ids import new_job_id
from stablequeue.request import GenerationRequest, Tier


def job(prompt: str = "a", **about: object) -> NewJob:
    """Return a job for gpu-a."""
    request = GenerationRequest.model_validate({"prompt": prompt, "server": "gpu-a", **about})
    return NewJob(request=request, job_id=new_job_id(), seed=1, deployment="generate/gpu-a")


def started(catalogue: Catalogue, stored: StoredRequest) -> StoredRequest:
    """Let a job's flow begin."""
    return catalogue.start(
        stored.request,
        job_id=stored.job_id,
        seed=stored.seed,
        server="gpu-a",
        flow_run_id="run-1",
        deployment="generate/gpu-a",
    )


def test_jobs_accepted_together_have_places_in_their_order(catalogue: Catalogue) -> None:
    [before] = catalogue.accept_many([job("first")])
    rows = catalogue.accept_many([job(str(number), tags=["x"]) for number in range(50)])
    times = [before.accepted_at, *(row.accepted_at for row in rows)]
    assert times == sorted(set(times))
    assert times[-1] <= datetime.now(UTC)
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert catalogue.requests(tag="X", limit=100)[::-1] == rows


def test_there_is_room_between_jobs_accepted_together(catalogue: Catalogue) -> None:
    rows = catalogue.accept_many([job(str(number)) for number in range(10)])
    gaps = {later.accepted_at - row.accepted_at for row, later in pairwise(rows)}
    assert min(gaps) >= timedelta(microseconds=90)


def test_the_same_job_twice_in_one_call_is_one_and_the_first_wins(catalogue: Catalogue) -> None:
    first = job("first")
    second = NewJob(
        request=job("second").request, job_id=first.job_id, seed=2, deployment="generate/gpu-a"
    )
    rows = catalogue.accept_many([first, second])
    assert rows[0] == rows[1]
    assert rows[0].data["prompt"] == "first"
    assert len(catalogue.requests()) == 1


def test_runs_are_recorded_but_not_for_jobs_that_ended_or_go_elsewhere(
    catalogue: Catalogue,
) -> None:
    good, ended, moved = catalogue.accept_many([job(), job(), job()])
    catalogue.finish(ended.job_id, Outcome(state=JobState.CANCELLED))
    elsewhere = moved.request.model_copy(update={"server": "gpu-b"})
    catalogue.redirect({moved.job_id: elsewhere}, deployment="generate/gpu-b")
    now = catalogue.mark_sent_many([(good, "1"), (ended, "2"), (moved, "3")])
    assert (now[good.job_id].state, now[good.job_id].flow_run_id) == (JobState.SENT, "1")
    assert (now[ended.job_id].state, now[ended.job_id].flow_run_id) == (JobState.CANCELLED, "")
    assert (now[moved.job_id].state, now[moved.job_id].flow_run_id) == (JobState.ACCEPTED, "")


def test_a_job_sent_elsewhere_keeps_its_run_until_that_is_over(catalogue: Catalogue) -> None:
    [row] = catalogue.accept_many([job()])
    catalogue.mark_sent_many([(row, "old")])
    request = row.request.model_copy(update={"server": "gpu-b"})
    moved = catalogue.redirect({row.job_id: request}, deployment="generate/gpu-b")[row.job_id]
    assert (moved.state, moved.flow_run_id, moved.server) == (JobState.ACCEPTED, "old", "gpu-b")
    assert catalogue.forget_runs({row.job_id: "another"}) == {}
    assert catalogue.forget_runs({row.job_id: "old"})[row.job_id].flow_run_id == ""
    assert catalogue.unsent(older_than_s=0, limit=5)[0].deployment == "generate/gpu-b"


def test_a_job_that_has_begun_stays_where_it_is(catalogue: Catalogue) -> None:
    [row] = catalogue.accept_many([job()])
    began = started(catalogue, row)
    request = row.request.model_copy(update={"server": "gpu-b"})
    assert catalogue.redirect({row.job_id: request}, deployment="generate/gpu-b") == {}
    assert catalogue.request(row.job_id) == began


def test_what_a_waiting_job_asks_for_can_change_until_it_begins(catalogue: Catalogue) -> None:
    [row] = catalogue.accept_many([job(tags=["old"])])
    changed = GenerationRequest(prompt="b", server="gpu-a", tags=["new"])
    asked = {row.job_id: Asked(request=changed, seed=7)}
    now = catalogue.edit_waiting(asked)[row.job_id]
    assert (now.data["prompt"], now.seed) == ("b", 7)
    assert [one.job_id for one in catalogue.requests(tag="new")] == [row.job_id]
    assert catalogue.requests(tag="old") == []
    started(catalogue, now)
    later = {row.job_id: Asked(request=row.request, seed=9)}
    assert catalogue.edit_waiting(later)[row.job_id].data["prompt"] == "b"


@pytest.mark.parametrize("tier", list(Tier))
def test_a_tier_can_change_until_the_job_ends(catalogue: Catalogue, tier: Tier) -> None:
    [row] = catalogue.accept_many([job(tier="bulk")])
    started(catalogue, row)
    assert catalogue.set_tier([row.job_id], tier)[row.job_id].request.tier is tier
    catalogue.finish(row.job_id, Outcome(state=JobState.COMPLETED))
    assert catalogue.set_tier([row.job_id], Tier.BULK)[row.job_id].request.tier is tier


def test_unsent_jobs_are_read_page_after_page(catalogue: Catalogue) -> None:
    rows = catalogue.accept_many([job(str(number)) for number in range(5)])
    first = catalogue.unsent(older_than_s=0, limit=3)
    rest = catalogue.unsent(older_than_s=0, limit=3, after=first[-1].id)
    assert [*first, *rest] == rows
