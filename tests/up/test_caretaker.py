"""What must happen although no run is there to do it."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from stablequeue.catalogue import (
    AttemptState,
    Catalogue,
    JobState,
    Outcome,
    StoredRequest,
    open_catalogue,
)
from stablequeue.engines.base import Located, Ticket
from stablequeue.errors import EngineUnreachable, NotFound, PrefectRefused, PrefectUnreachable
from stablequeue.ids import new_job_id
from stablequeue.pipeline.resolve import EVERY_PARKED
from stablequeue.prefect_api import BlockDocument, Deployment, NewRun, PrefectApi, Run, StateType
from stablequeue.request import GenerationRequest
from stablequeue.servers import ServerConfig
from stablequeue.up import caretaker as caretaker_module
from stablequeue.up.caretaker import Caretaker
from tests.pipeline.scripted import HANG, Scripted
from tests.support.waiting import wait_until

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


class Api:
    """Prefect's API as the caretaker uses it."""

    def __init__(self) -> None:
        self.servers: list[str] = []
        self.known: dict[str, Run] = {}
        self.created: list[str] = []
        self.resumed: list[str] = []
        self.without: set[str] = set()
        self.refused: set[str] = set()
        self.down = False

    def api(self) -> PrefectApi:
        return cast("PrefectApi", self)

    def deployment(self, name: str) -> Deployment:
        if self.down:
            raise PrefectUnreachable("away")
        if name in self.without:
            raise NotFound(f"no deployment {name}")
        return Deployment(id=name, name=name, flow_id="generate")

    def create_runs(
        self, deployment: Deployment, new: Sequence[NewRun]
    ) -> list[str | PrefectRefused]:
        return [self._created(deployment, one) for one in new]

    def _created(self, deployment: Deployment, new: NewRun) -> str | PrefectRefused:
        if new.idempotency_key in self.refused:
            return PrefectRefused("too large")
        self.created.append(deployment.name)
        run_id = f"run-of-{new.idempotency_key}"
        self.known[run_id] = run_in(
            StateType.SCHEDULED,
            run_id,
            idempotency_key=new.idempotency_key,
            deployment_id=deployment.id,
        )
        return run_id

    def runs(self, wanted: dict[str, Any]) -> list[Run]:
        flow_runs = wanted["flow_runs"]
        if "id" in flow_runs:
            return [self.known[one] for one in flow_runs["id"]["any_"] if one in self.known]
        names = flow_runs["state"]["name"]["any_"]
        return [run for run in self.known.values() if run.state_name in names]

    def block_documents(self, _slug: str, *, secrets: bool = False) -> list[BlockDocument]:
        del secrets
        data = {"type": "comfyui", "url": "http://127.0.0.1:1"}
        return [
            BlockDocument.from_json({"id": name, "name": name, "data": data})
            for name in self.servers
        ]

    def block_document(self, slug: str, name: str, *, secrets: bool = False) -> BlockDocument:
        for document in self.block_documents(slug, secrets=secrets):
            if document.name == name:
                return document
        raise NotFound(name)

    def resume_pool(self, name: str) -> None:
        self.resumed.append(name)


def run_in(state: StateType, run_id: str = "run", **more: Any) -> Run:
    return Run(id=run_id, name="x", state_type=state, state_name=state.value.title(), **more)


class Bench:
    """A caretaker with a real catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue, self.api = catalogue, Api()
        self.caretaker = Caretaker(catalogue, self.api.api())
        fields = {"alias": "gpu-a", "type": "comfyui", "url": "http://127.0.0.1:1"}
        self.engine = Scripted(ServerConfig.model_validate(fields))

    def accepted(self, server: str = "any") -> StoredRequest:
        return self.catalogue.accept(
            GenerationRequest.model_validate({"prompt": "a cat"}),
            job_id=new_job_id(),
            seed=1,
            deployment=f"generate/{server}",
        )

    def sent(self, run: Run | None) -> str:
        """Return the id of a job that was sent and whose run is so now."""
        job_id = self.accepted().job_id
        self.catalogue.mark_sent(job_id, f"run-of-{job_id}")
        if run is not None:
            self.api.known[f"run-of-{job_id}"] = replace(run, id=f"run-of-{job_id}")
        return job_id

    def begun(self, job_id: str, state: AttemptState | None = None, server: str = "gpu-a") -> int:
        attempt = self.catalogue.begin_attempt(
            job_id,
            0,
            server=server,
            engine="comfyui",
            make_ticket=lambda n: Ticket(engine="comfyui", remote_id=f"0-{n}"),
        )
        if state:
            self.catalogue.update_attempt(attempt.id, state)
        return attempt.id

    def cancelled(self, server: str = "gpu-a") -> str:
        """Return the id of a cancelled job whose remote job may still run."""
        job_id = self.accepted().job_id
        self.begun(job_id, AttemptState.CANCELLING, server)
        self.catalogue.finish(job_id, Outcome(state=JobState.CANCELLED))
        return job_id

    def attempt(self, job_id: str) -> AttemptState:
        return self.catalogue.attempts(job_id)[-1].state

    def state(self, job_id: str) -> JobState:
        return self.catalogue.request(job_id).state


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    catalogue = open_catalogue(f"sqlite:///{tmp_path / 'catalogue.db'}")
    bench = Bench(catalogue)

    def opened(_server: ServerConfig) -> Scripted:
        return bench.engine

    monkeypatch.setattr(caretaker_module, "open_engine", opened)
    monkeypatch.setattr(caretaker_module, "UNSENT_AFTER_S", 0)
    yield bench
    catalogue.close()


def test_accepted_jobs_get_their_runs_in_order(bench: Bench) -> None:
    jobs = [bench.accepted(server) for server in ("any", "gpu-a")]
    asyncio.run(bench.caretaker.send_accepted())
    assert bench.api.created == ["generate/any", "generate/gpu-a"]
    assert [bench.state(job.job_id) for job in jobs] == [JobState.SENT] * 2
    asyncio.run(bench.caretaker.send_accepted())
    assert len(bench.api.created) == 2


def test_a_job_that_was_just_accepted_is_left_to_its_client(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker_module, "UNSENT_AFTER_S", 60)
    bench.accepted()
    asyncio.run(bench.caretaker.send_accepted())
    assert bench.api.created == []


def test_a_job_without_a_deployment_waits_and_is_told_of_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.api.without = {"generate/new"}
    job, refused, other = (bench.accepted(server) for server in ("new", "any", "any"))
    bench.api.refused = {refused.job_id}
    for _ in range(3):
        asyncio.run(bench.caretaker.send_accepted())
    assert caplog.text.count("jobs of generate/new cannot be sent yet (1 now)") == 1
    assert caplog.text.count(f"{refused.job_id} cannot be sent yet: too large") == 1
    assert bench.state(other.job_id) is JobState.SENT

    bench.api.without, bench.api.refused = set(), set()
    asyncio.run(bench.caretaker.send_accepted())
    assert bench.state(job.job_id) is JobState.SENT
    assert bench.state(refused.job_id) is JobState.SENT


def test_many_jobs_that_cannot_be_sent_do_not_keep_later_ones_from_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker_module, "AT_ONCE", 3)
    bench.api.without = {"generate/gone"}
    for _ in range(7):
        bench.accepted("gone")
    last = bench.accepted()
    asyncio.run(bench.caretaker.send_accepted())
    assert bench.state(last.job_id) is JobState.SENT


@pytest.mark.parametrize(
    ("run", "state", "advice"),
    [
        (run_in(StateType.CRASHED, ended=LONG_AGO), JobState.CRASHED, "stablequeue retry"),
        (run_in(StateType.FAILED, ended=LONG_AGO), JobState.FAILED, "stablequeue show -v"),
        (run_in(StateType.CANCELLED, ended=LONG_AGO), JobState.CANCELLED, ""),
        (run_in(StateType.COMPLETED), JobState.COMPLETED, ""),
        (None, JobState.CANCELLED, ""),
    ],
)
def test_a_run_that_ended_without_our_flow_gives_its_job_an_outcome(
    bench: Bench, run: Run | None, state: JobState, advice: str
) -> None:
    job_id = bench.sent(run)
    bench.begun(job_id)
    asyncio.run(bench.caretaker.note_endings())
    assert bench.state(job_id) is state
    outcome = bench.catalogue.outcome(job_id)
    assert outcome
    assert advice in outcome.advice
    assert outcome.message == (run.state_name if run else "its run was deleted in Prefect")
    stopping = state is JobState.CANCELLED
    assert bench.attempt(job_id) is (AttemptState.CANCELLING if stopping else AttemptState.OPEN)


def test_a_run_that_goes_on_or_ended_just_now_is_left_to_its_flow(bench: Bench) -> None:
    ends = datetime.now(UTC) + timedelta(minutes=1)  # however slow this machine is
    runs = [run_in(StateType.RUNNING), run_in(StateType.FAILED, ended=ends)]
    jobs = [bench.sent(run) for run in runs]
    asyncio.run(bench.caretaker.note_endings())
    assert [bench.state(job_id) for job_id in jobs] == [JobState.SENT] * 2


def test_what_was_collected_of_a_cancelled_run_is_not_thrown_away(bench: Bench) -> None:
    job_id = bench.sent(None)
    bench.begun(job_id, AttemptState.COLLECTED)
    asyncio.run(bench.caretaker.note_endings())
    assert bench.attempt(job_id) is AttemptState.COLLECTED


def test_every_live_job_is_looked_at_however_many_there_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker_module, "_BATCH", 2)
    jobs = [bench.sent(run_in(StateType.CRASHED, ended=LONG_AGO)) for _ in range(5)]
    asyncio.run(bench.caretaker.note_endings())
    assert {bench.state(job_id) for job_id in jobs} == {JobState.CRASHED}


@pytest.mark.parametrize("located", [Located.DONE, Located.GONE])
def test_a_remote_job_that_is_over_needs_no_stop(bench: Bench, located: Located) -> None:
    bench.api.servers = ["gpu-a"]
    job_id = bench.cancelled()
    bench.engine.locates = [located]
    asyncio.run(bench.caretaker.settle_cancelled())
    assert bench.attempt(job_id) is AttemptState.CANCELLED
    assert bench.engine.calls == ["locate 0-1"]


def test_a_remote_job_is_stopped_until_the_server_confirms_it(bench: Bench) -> None:
    bench.api.servers = ["gpu-a"]
    job_id = bench.cancelled()
    bench.engine.locates = [Located.RUNNING, Located.RUNNING]
    bench.engine.cancels = [False, True]
    asyncio.run(bench.caretaker.settle_cancelled())
    assert bench.attempt(job_id) is AttemptState.CANCELLING
    asyncio.run(bench.caretaker.settle_cancelled())
    assert bench.attempt(job_id) is AttemptState.CANCELLED
    assert bench.engine.calls.count("cancel 0-1") == 2


def test_a_job_that_is_retried_is_left_to_its_new_run(bench: Bench) -> None:
    bench.api.servers = ["gpu-a"]
    job_id = bench.cancelled()
    bench.catalogue.reopen(job_id)
    asyncio.run(bench.caretaker.settle_cancelled())
    assert bench.attempt(job_id) is AttemptState.CANCELLING
    assert bench.engine.calls == []


def test_a_server_that_is_not_saved_any_more_has_nothing_to_settle(bench: Bench) -> None:
    job_id = bench.cancelled("gone")
    asyncio.run(bench.caretaker.settle_cancelled())
    (attempt,) = bench.catalogue.attempts(job_id)
    assert attempt.state is AttemptState.CANCELLED
    assert "there is no server 'gone'" in attempt.note


@pytest.mark.parametrize("answer", [EngineUnreachable("gpu-a", "away"), HANG])
def test_a_server_that_does_not_answer_does_not_hold_up_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(caretaker_module, "_SETTLE_WITHIN_S", 1.0)
    bench.api.servers = ["gpu-a", "gpu-b"]
    first, second = bench.cancelled("gpu-a"), bench.cancelled("gpu-b")
    bench.engine.locates = [answer, Located.GONE]
    asyncio.run(bench.caretaker.settle_cancelled())
    assert bench.attempt(first) is AttemptState.CANCELLING
    assert bench.attempt(second) is AttemptState.CANCELLED


def test_jobs_for_any_server_go_on_when_one_is_not_parked_any_more(bench: Bench) -> None:
    bench.api.servers = ["gpu-a", "gpu-b"]
    for alias in ("gpu-a", "gpu-b"):
        bench.catalogue.park(alias, "the disk is full")
    bench.catalogue.park("any", f"store any: {EVERY_PARKED}: the disk is full")
    asyncio.run(bench.caretaker.resume_any())
    assert bench.api.resumed == []

    bench.catalogue.unpark("gpu-b")
    asyncio.run(bench.caretaker.resume_any())
    assert bench.api.resumed == ["any"]
    assert list(bench.catalogue.parked()) == ["gpu-a"]


def test_jobs_for_any_server_parked_for_another_reason_wait_for_a_person(bench: Bench) -> None:
    bench.api.servers = ["gpu-a"]
    asyncio.run(bench.caretaker.resume_any())
    bench.catalogue.park("any", "the disk is full")
    asyncio.run(bench.caretaker.resume_any())
    assert bench.api.resumed == []


def test_a_fault_of_one_step_is_logged_and_the_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caretaker_module, "EVERY_S", 0.001)
    bench.api.down, bench.api.servers = True, ["gpu-a"]
    waiting, job_id = bench.accepted(), bench.cancelled()
    bench.engine.locates = [Located.GONE]

    async def check() -> None:
        caring = asyncio.create_task(bench.caretaker.run())
        for done in (
            lambda: bench.attempt(job_id) is AttemptState.CANCELLED,
            lambda: bench.state(waiting.job_id) is JobState.SENT,
        ):
            await asyncio.to_thread(wait_until, done)
            bench.api.down = False
        caring.cancel()
        await asyncio.gather(caring, return_exceptions=True)

    with caplog.at_level(logging.WARNING, "stablequeue"):
        asyncio.run(check())
    assert "send accepted: away" in caplog.text
