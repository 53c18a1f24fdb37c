"""Requests: accepting, starting, sending, listing."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stablequeue.catalogue import Catalogue, JobState, NewJob, Outcome, StoredRequest
from stablequeue.catalogue.glance import open_glance
from stablequeue.errors import BadRequest, NotFound, Refused
from stablequeue.ids import new_job_id, short_id
from stablequeue.request import GenerationRequest
from tests.catalogue.making import accepted

REQUEST = GenerationRequest(prompt="a cat", tags=["Demo"], server="gpu-a", source="script")


def started(
    catalogue: Catalogue, job_id: str, run: str = "run-1", prompt: str = "edited"
) -> StoredRequest:
    return catalogue.start(
        GenerationRequest(prompt=prompt, tags=["later"]),
        job_id=job_id,
        seed=99,
        server="gpu-b",
        flow_run_id=run,
        deployment="generate/gpu-b",
    )


def test_an_accepted_request_reads_back_equal(catalogue: Catalogue) -> None:
    job_id = new_job_id()
    before = datetime.now(UTC)
    made = catalogue.accept(REQUEST, job_id=job_id, seed=2**53 - 1, deployment="generate/gpu-a")

    read = catalogue.request(job_id)

    assert read == made
    assert read.request == REQUEST
    assert (read.seed, read.state, read.server) == (2**53 - 1, JobState.ACCEPTED, "gpu-a")
    assert (read.source, read.tags, read.flow_run_id) == ("script", ("Demo",), "")
    assert before <= read.accepted_at <= datetime.now(UTC)
    assert read.accepted_at.utcoffset() == timedelta(0)


def test_accepting_twice_is_one_job_and_the_first_wins(catalogue: Catalogue) -> None:
    job_id = new_job_id()
    first = catalogue.accept(REQUEST, job_id=job_id, seed=1, deployment="d")
    other = GenerationRequest(prompt="a dog")

    again = catalogue.accept(other, job_id=job_id.upper(), seed=2, deployment="e")

    assert again == first
    assert catalogue.requests() == [first]


def test_accepting_many_is_all_or_none(catalogue: Catalogue) -> None:
    jobs = [
        NewJob(request=REQUEST, job_id=new_job_id(), seed=at, deployment="d") for at in range(20)
    ]
    made = catalogue.accept_many(jobs)
    assert [job.job_id for job in made] == [job.job_id for job in jobs]
    bad = NewJob(request=REQUEST, job_id="no uuid", seed=1, deployment="d")
    good = NewJob(request=REQUEST, job_id=new_job_id(), seed=1, deployment="d")

    with pytest.raises(BadRequest, match="job_id"):
        catalogue.accept_many([good, bad])

    assert catalogue.requests() == made[::-1]
    assert catalogue.accept_many([good, jobs[0], good]) == [
        catalogue.request(good.job_id),
        made[0],
        catalogue.request(good.job_id),
    ]
    assert len(catalogue.requests(tag="demo")) == 21


def test_what_was_accepted_survives_closing(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    catalogue.close()
    assert catalogue.request(job.job_id) == job


def test_the_first_start_freezes_the_request_as_it_is_then(catalogue: Catalogue) -> None:
    job = accepted(catalogue, "a cat", tags=["early"])

    first = started(catalogue, job.job_id)

    assert (first.request.prompt, first.seed, first.state) == ("edited", 99, JobState.STARTED)
    assert (first.server, first.flow_run_id, first.deployment) == (
        "gpu-b",
        "run-1",
        "generate/gpu-b",
    )
    assert first.started_at is not None
    assert catalogue.requests(tag="early") == []
    assert catalogue.requests(tag="LATER") == [first]


def test_a_later_start_gets_the_frozen_request_and_notes_the_run(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    first = started(catalogue, job.job_id)

    second = catalogue.start(
        GenerationRequest(prompt="changed too late"),
        job_id=job.job_id,
        seed=5,
        server="gpu-c",
        flow_run_id="run-2",
        deployment="generate/gpu-c",
    )

    assert (second.request, second.seed) == (first.request, 99)
    assert second.started_at == first.started_at
    assert (second.server, second.flow_run_id) == ("gpu-c", "run-2")


def test_a_run_made_elsewhere_writes_its_own_row(catalogue: Catalogue) -> None:
    job_id = new_job_id()
    row = started(catalogue, job_id)
    assert catalogue.request(job_id) == row
    assert row.state is JobState.STARTED
    assert catalogue.unsent(older_than_s=0, limit=10) == []


def test_unsent_are_the_accepted_without_run_oldest_first(catalogue: Catalogue) -> None:
    jobs = [accepted(catalogue) for _ in range(6)]
    catalogue.mark_sent(jobs[1].job_id, "run-1")
    catalogue.finish(jobs[2].job_id, Outcome(state=JobState.CANCELLED))
    started(catalogue, jobs[3].job_id)

    unsent = catalogue.unsent(older_than_s=0, limit=10)

    assert unsent == [jobs[0], jobs[4], jobs[5]]
    assert catalogue.unsent(older_than_s=0, limit=1) == [jobs[0]]
    assert catalogue.unsent(older_than_s=60, limit=10) == []


def test_a_sent_job_knows_its_run(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    assert catalogue.mark_sent(job.job_id, "run-1")
    row = catalogue.request(job.job_id)
    assert (row.state, row.flow_run_id) == (JobState.SENT, "run-1")
    assert row.sent_at is not None


def test_sending_a_job_that_was_cancelled_meanwhile_says_so(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    catalogue.finish(job.job_id, Outcome(state=JobState.CANCELLED))
    assert not catalogue.mark_sent(job.job_id, "run-1")
    assert catalogue.request(job.job_id).flow_run_id == ""


def test_marking_after_the_flow_began_keeps_it_started(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    started(catalogue, job.job_id, run="run-1")
    assert catalogue.mark_sent(job.job_id, "run-1")
    assert catalogue.request(job.job_id).state is JobState.STARTED


def test_a_stray_run_of_a_cancelled_job_is_refused(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    catalogue.finish(job.job_id, Outcome(state=JobState.CANCELLED))
    with pytest.raises(Refused, match="cancelled"):
        started(catalogue, job.job_id, run="stray")
    assert catalogue.request(job.job_id).state is JobState.CANCELLED


def test_retrying_the_run_that_was_cancelled_opens_the_job(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    started(catalogue, job.job_id, run="run-1")
    catalogue.finish(job.job_id, Outcome(state=JobState.CANCELLED))

    row = started(catalogue, job.job_id, run="run-1")

    assert row.state is JobState.STARTED
    assert catalogue.outcome(job.job_id) is None


def test_a_reopened_job_is_sent_again_with_what_was_frozen(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    frozen = started(catalogue, job.job_id, run="run-1")
    catalogue.finish(job.job_id, Outcome(state=JobState.FAILED, code="x"))

    row = catalogue.reopen(job.job_id, deployment="generate/gpu-z", server="gpu-z")

    assert (row.state, row.flow_run_id, row.server) == (JobState.ACCEPTED, "", "gpu-z")
    assert catalogue.outcome(job.job_id) is None
    assert catalogue.unsent(older_than_s=0, limit=5) == [row]
    assert catalogue.mark_sent(job.job_id, "run-2")
    again = started(catalogue, job.job_id, run="run-2", prompt="something else")
    assert (again.request, again.seed) == (frozen.request, frozen.seed)


def test_a_finished_job_is_not_reopened(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    catalogue.finish(job.job_id, Outcome(state=JobState.DEGRADED))
    with pytest.raises(Refused, match="--again"):
        catalogue.reopen(job.job_id)


def test_reopening_a_job_that_has_not_ended_changes_nothing(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    catalogue.mark_sent(job.job_id, "run-1")
    assert catalogue.reopen(job.job_id, server="gpu-z").flow_run_id == "run-1"


def test_a_job_is_found_by_beginning_and_end_of_its_id(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    other = "ffffffff-0000-7000-8000-0123456789ab"
    catalogue.accept(REQUEST, job_id=other, seed=1, deployment="d")

    for part in (job.job_id, job.job_id.upper(), short_id(job.job_id), job.job_id[:20]):
        assert catalogue.request(part).job_id == job.job_id
    for part in ("ffffffff-0000-7", "ffffffff00007", "89ab", " 456789AB ", other.replace("-", "")):
        assert catalogue.request(part).job_id == other


def test_an_ambiguous_part_of_an_id_is_refused(catalogue: Catalogue) -> None:
    for end in ("0aaa", "1aaa"):
        job_id = f"01890000-0000-7000-8000-00000000{end}"
        catalogue.accept(REQUEST, job_id=job_id, seed=1, deployment="d")
    for part in ("aaa", "0189"):
        with pytest.raises(Refused, match="more than one"):
            catalogue.request(part)
    assert catalogue.request("0aaa").job_id.endswith("0aaa")


def test_a_part_no_id_has_is_not_found(catalogue: Catalogue) -> None:
    accepted(catalogue)
    for part in ("", "-", "zz", "0" * 33, "%", "' OR 1=1", "ab_", "\0", "\u0663"):
        with pytest.raises(NotFound, match="stablequeue ls"):
            catalogue.request(part)


def test_jobs_are_listed_newest_first_and_page_by_page(catalogue: Catalogue) -> None:
    jobs = [accepted(catalogue) for _ in range(7)]
    newest_first = jobs[::-1]

    first = catalogue.requests(limit=3)
    second = catalogue.requests(limit=3, before=first[-1].id)
    third = catalogue.requests(limit=3, before=second[-1].id)

    assert [*first, *second, *third] == newest_first
    assert catalogue.requests(limit=0) == []
    assert catalogue.requests(before=10**30) == newest_first
    assert catalogue.requests(before=-(10**6)) == []


def test_jobs_are_listed_by_state_server_and_tag(catalogue: Catalogue) -> None:
    plain = accepted(catalogue)
    tagged = accepted(catalogue, tags=["Straße", "x"], server="gpu-a")
    failed = accepted(catalogue, server="gpu-a")
    catalogue.finish(failed.job_id, Outcome(state=JobState.FAILED))

    assert [job.id for job in catalogue.requests(server="gpu-a")] == [failed.id, tagged.id]
    assert catalogue.requests(tag="STRASSE") == [tagged]
    assert [job.id for job in catalogue.requests(states={JobState.FAILED})] == [failed.id]
    waiting = catalogue.requests(states=[JobState.ACCEPTED, JobState.SENT], limit=10)
    assert waiting == [tagged, plain]
    assert catalogue.requests(states=[JobState.FAILED], tag="x") == []
    everything = catalogue.requests(states=list(JobState), limit=2)
    assert [job.id for job in everything] == [failed.id, tagged.id]


def test_many_jobs_are_looked_up_at_once(catalogue: Catalogue) -> None:
    jobs = catalogue.accept_many(
        [NewJob(request=REQUEST, job_id=new_job_id(), seed=1, deployment="d") for _ in range(600)]
    )
    found = catalogue.requests_by_id([*(job.job_id for job in jobs), new_job_id()])
    assert found == {job.job_id: job for job in jobs}
    assert catalogue.requests_by_id([]) == {}


def test_a_job_id_must_be_a_uuid(catalogue: Catalogue) -> None:
    for job_id in ("", "x", "../../etc", "0189"):
        with pytest.raises(BadRequest, match="job_id"):
            catalogue.accept(REQUEST, job_id=job_id, seed=1, deployment="d")


def test_a_request_of_a_newer_release_spoils_only_itself(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = accepted(catalogue)
    newer = accepted(catalogue)

    def of_a_newer_release(_request: GenerationRequest) -> dict[str, object]:
        return {"schema_version": 99, "prompt": "?"}

    monkeypatch.setattr(GenerationRequest, "dumped", of_a_newer_release)
    started(catalogue, newer.job_id)
    monkeypatch.undo()

    listed = catalogue.requests()

    assert [row.job_id for row in listed] == [newer.job_id, job.job_id]
    with pytest.raises(BadRequest, match="newer release"):
        _ = listed[0].request
    assert listed[1].request.prompt == "a cat"


def test_a_waiting_request_of_an_older_release_is_migrated_when_read(
    catalogue: Catalogue, catalogue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_an_older_release(_request: GenerationRequest) -> dict[str, object]:
        return {"schema_version": 1, "words": "a cat"}

    with monkeypatch.context() as older:
        older.setattr(GenerationRequest, "dumped", of_an_older_release)
        job = accepted(catalogue)

    def migrate(data: Mapping[str, Any]) -> dict[str, Any]:
        return {"prompt": data["words"]}

    monkeypatch.setattr("stablequeue.request.migrate", migrate)
    for row in (
        catalogue.request(job.job_id),
        *catalogue.unsent(older_than_s=0, limit=1),
        *open_glance(catalogue_url).requests(),
    ):
        assert row.request == GenerationRequest(prompt="a cat")
