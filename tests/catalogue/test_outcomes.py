"""Outcomes and parked servers."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from stablequeue.catalogue import ENDED, FINISHED, Catalogue, JobState, Outcome
from stablequeue.errors import NotFound
from stablequeue.ids import new_job_id
from tests.catalogue.making import accepted

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_an_outcome_reads_back_equal(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    outcome = Outcome(
        state=JobState.FAILED,
        code="model_missing",
        message="gpu-a: no \0 such\ud800 model",
        advice="add it",
        started_at=NOON,
        finished_at=NOON + timedelta(minutes=1),
    )
    catalogue.finish(job.job_id, outcome)

    read = catalogue.outcome(job.job_id)

    assert read is not None
    assert read.message == "gpu-a: no \ufffd such? model"
    assert (read.state, read.code, read.advice) == (JobState.FAILED, "model_missing", "add it")
    assert (read.started_at, read.finished_at) == (NOON, NOON + timedelta(minutes=1))
    assert catalogue.request(job.job_id).state is JobState.FAILED


def test_times_of_another_zone_come_back_in_utc(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    local = NOON.astimezone(tz=datetime.strptime("+0530", "%z").tzinfo)
    catalogue.finish(job.job_id, Outcome(state=JobState.EXPIRED, finished_at=local))
    read = catalogue.outcome(job.job_id)
    assert read is not None
    assert read.finished_at == NOON
    assert read.finished_at is not None
    assert read.finished_at.utcoffset() == timedelta(0)


def test_a_job_that_has_not_ended_has_no_outcome(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    assert catalogue.outcome(job.job_id) is None
    assert catalogue.outcomes([job.job_id, new_job_id()]) == {}


def test_an_outcome_without_times_ended_now(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    before = datetime.now(UTC)
    catalogue.finish(job.job_id, Outcome(state=JobState.COMPLETED))
    read = catalogue.outcome(job.job_id)
    assert read is not None
    assert read.finished_at is not None
    assert before <= read.finished_at <= datetime.now(UTC)


def test_the_last_outcome_counts_but_a_result_is_never_cancelled_or_crashed(
    catalogue: Catalogue,
) -> None:
    for first, second in product(sorted(ENDED), repeat=2):
        job = accepted(catalogue)
        catalogue.finish(job.job_id, Outcome(state=first))
        catalogue.finish(job.job_id, Outcome(state=second))

        late = second in {JobState.CRASHED, JobState.CANCELLED}
        expected = first if first in FINISHED and late else second
        read = catalogue.outcome(job.job_id)
        assert read is not None
        assert read.state is expected, (first, second)
        assert catalogue.request(job.job_id).state is expected


def test_an_unfinished_state_is_no_outcome() -> None:
    with pytest.raises(ValueError, match="not an ending"):
        Outcome(state=JobState.STARTED)


def test_an_unknown_job_cannot_end(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound):
        catalogue.finish(new_job_id(), Outcome(state=JobState.COMPLETED))


def test_parking_tells_once(catalogue: Catalogue) -> None:
    assert catalogue.park("gpu-a", "disk full")
    since = catalogue.parked()["gpu-a"].since
    assert not catalogue.park("gpu-a", "still full")
    assert catalogue.park("gpu-b", "no credentials")

    parked = catalogue.parked()

    assert {server: row.reason for server, row in parked.items()} == {
        "gpu-a": "still full",
        "gpu-b": "no credentials",
    }
    assert parked["gpu-a"].since == since
    assert catalogue.unpark("gpu-a")
    assert not catalogue.unpark("gpu-a")
    assert set(catalogue.parked()) == {"gpu-b"}
