"""Attempts and their transitions."""

from itertools import product

import pytest

from stablequeue.catalogue import TRANSITIONS, AttemptState, Catalogue
from stablequeue.catalogue.records import TERMINAL
from stablequeue.engines.base import Ticket
from stablequeue.errors import NotFound, Refused
from stablequeue.ids import new_job_id, remote_key
from tests.catalogue.making import accepted, begun, new_asset, ticket

ABANDONED = (AttemptState.FAILED, AttemptState.GONE, AttemptState.CANCELLED)


def test_an_attempt_reads_back_with_its_ticket(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    made = begun(catalogue, job.job_id, 3)

    assert catalogue.attempts(job.job_id) == [made]
    assert catalogue.last_attempt(job.job_id, 3) == made
    assert catalogue.last_attempt(job.job_id, 0) is None
    assert (made.index, made.attempt, made.state) == (3, 1, AttemptState.OPEN)
    assert made.ticket == ticket(1)
    assert (made.server, made.engine, made.repeat, made.note, made.error) == (
        "gpu-a",
        "forge",
        False,
        "",
        "",
    )


def test_attempts_count_up_and_their_number_makes_the_ticket(catalogue: Catalogue) -> None:
    job = accepted(catalogue)

    def make(number: int) -> Ticket:
        return Ticket(engine="comfyui", remote_id=str(remote_key(job.job_id, 0, number)))

    for number in (1, 2, 3):
        attempt = begun(catalogue, job.job_id, make_ticket=make)
        assert attempt.attempt == number
        assert attempt.ticket.remote_id == str(remote_key(job.job_id, 0, number))
        assert catalogue.update_attempt(attempt.id, AttemptState.GONE)
    assert begun(catalogue, job.job_id, 1).attempt == 1


@pytest.mark.parametrize("state", [AttemptState.OPEN, AttemptState.COLLECTED, AttemptState.STORED])
def test_no_attempt_begins_while_one_may_still_give_the_picture(
    catalogue: Catalogue, state: AttemptState
) -> None:
    job = accepted(catalogue)
    first = begun(catalogue, job.job_id)
    catalogue.update_attempt(first.id, state)
    with pytest.raises(Refused, match=f"attempt 1 is {state}"):
        begun(catalogue, job.job_id)
    assert len(catalogue.attempts(job.job_id)) == 1


def test_a_new_attempt_may_begin_while_an_old_one_is_being_cancelled(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    first = begun(catalogue, job.job_id, server="gpu-a")
    catalogue.update_attempt(first.id, AttemptState.CANCELLING)

    second = begun(catalogue, job.job_id, server="gpu-b")

    assert second.attempt == 2
    cancelling = catalogue.open_attempts(server="gpu-a", states=[AttemptState.CANCELLING])
    assert [attempt.id for attempt in cancelling] == [first.id]
    assert [attempt.id for attempt in catalogue.open_attempts()] == [first.id, second.id]
    assert catalogue.open_attempts(server="gpu-b", states=[AttemptState.CANCELLING]) == []
    assert catalogue.open_attempts(states=[AttemptState.STORED]) == []


def test_a_ticket_that_cannot_be_made_leaves_nothing(catalogue: Catalogue) -> None:
    job = accepted(catalogue)

    def broken(_number: int) -> Ticket:
        raise Refused("no ticket")

    with pytest.raises(Refused, match="no ticket"):
        begun(catalogue, job.job_id, make_ticket=broken)
    assert catalogue.attempts(job.job_id) == []
    assert begun(catalogue, job.job_id).attempt == 1


def test_a_repeat_is_recorded_as_such(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    first = begun(catalogue, job.job_id)
    catalogue.update_attempt(first.id, AttemptState.GONE, note="the server cannot tell")
    second = catalogue.begin_attempt(
        job.job_id,
        0,
        server="gpu-a",
        engine="forge",
        make_ticket=ticket,
        repeat=True,
        note="asked again",
    )
    assert catalogue.last_attempt(job.job_id, 0) == second
    assert (second.repeat, second.note) == (True, "asked again")


def test_an_unknown_job_has_no_attempts(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound):
        begun(catalogue, new_job_id())
    assert catalogue.attempts(new_job_id()) == []


def test_the_server_may_choose_another_id(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    attempt = begun(catalogue, job.job_id)
    chosen = Ticket(engine="forge", remote_id="theirs", data={"pinned": [1, None, "ü"]})

    assert catalogue.update_attempt(attempt.id, AttemptState.OPEN, ticket=chosen, note="renamed")

    read = catalogue.last_attempt(job.job_id, 0)
    assert read is not None
    assert (read.ticket, read.note, read.state) == (chosen, "renamed", AttemptState.OPEN)
    assert read.updated_at >= attempt.updated_at


def test_every_transition_is_as_the_table_says(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    for index, (before, after) in enumerate(product(AttemptState, repeat=2)):
        attempt = begun(catalogue, job.job_id, index)
        if before is not AttemptState.OPEN:
            assert catalogue.update_attempt(attempt.id, before)

        moved = catalogue.update_attempt(attempt.id, after, error="late")

        read = catalogue.last_attempt(job.job_id, index)
        assert read is not None
        assert moved is (after in TRANSITIONS[before]), (before, after)
        assert read.state is (after if moved else before)
        assert read.error == ("late" if moved else "")


def test_the_table_of_transitions_is_sound() -> None:
    assert set(TRANSITIONS) == set(AttemptState)
    assert {state for state in AttemptState if not TRANSITIONS[state]} == TERMINAL
    assert AttemptState.STORED in TERMINAL
    for state, following in TRANSITIONS.items():
        assert AttemptState.OPEN not in following or state is AttemptState.OPEN
        assert state in TERMINAL or following & TERMINAL


def test_an_unknown_attempt_is_not_found(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match="attempt 77"):
        catalogue.update_attempt(77, AttemptState.GONE)
    with pytest.raises(NotFound, match="attempt 77"):
        catalogue.record_assets(77, [new_asset()])


@pytest.mark.parametrize("state", ABANDONED)
def test_files_of_an_abandoned_attempt_are_not_recorded(
    catalogue: Catalogue, state: AttemptState
) -> None:
    job = accepted(catalogue)
    attempt = begun(catalogue, job.job_id)
    catalogue.update_attempt(attempt.id, state)
    with pytest.raises(Refused, match=state):
        catalogue.record_assets(attempt.id, [new_asset()])
    assert catalogue.assets(job.job_id) == []
    assert catalogue.blob("pictures", new_asset().sha256) is None
