"""Which server takes which run: limits, pauses, tiers, the shared pool, health."""

import asyncio
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stablequeue.model_names import model_key
from stablequeue.servers import ANY, ServerConfig
from stablequeue.settings import Settings
from stablequeue.wanting import lacks_tag, wanted_by
from stablequeue.worker import dispatch
from stablequeue.worker.ability import Lack
from stablequeue.worker.dispatch import Scheduling
from stablequeue.worker.knowledge import PoolState, ServerState
from stablequeue.worker.mirror import Seen
from stablequeue.worker.state_file import read_state
from stablequeue.worker.waiting import Waiting, models_of


def seen(run: str, pool: str, *, place: float = -100.0, tier: int = 1, **request: Any) -> Seen:
    now = datetime.now(UTC).timestamp()
    waiting = Waiting(
        run_id=run,
        job_id=f"job-{run}",
        tier=tier,
        place=now + place,
        created=now + place,
        models=models_of(request),
    )
    return Seen(waiting=waiting, pool=pool, request=request, row=None)


class Runs:
    """The mirror's part that deciding uses."""

    def __init__(self, *runs: Seen) -> None:
        self.seen = {run.waiting.run_id: run for run in runs}
        self.passed: list[str] = []

    @property
    def runs(self) -> Iterable[Seen]:
        return list(self.seen.values())

    def get(self, run: str) -> Seen | None:
        return self.seen.get(run)

    def forget(self, run: str) -> Seen | None:
        return self.seen.pop(run, None)

    def overtaken(self, runs: Iterable[str]) -> None:
        self.passed += runs

    async def anew(self, runs: Iterable[Seen]) -> list[Seen]:
        return [run for run in runs if run.waiting.run_id in self.seen]


class Asked:
    """Servers that can do everything but what a test says."""

    def __init__(self) -> None:
        self.lacking: dict[str, Lack] = {}

    async def lacks(self, server: ServerConfig, request: Mapping[str, Any]) -> Lack:
        del request
        return self.lacking.get(server.alias, Lack())


class Tried(Scheduling):
    """Notes what it would start instead of starting it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.started: list[tuple[str, str]] = []

    async def _start(self, worker: Any, server: ServerState | None, seen: Seen) -> None:
        del worker
        self.started.append((seen.waiting.run_id, server.alias if server else ""))


class Bench:
    """Scheduling with servers a test makes up."""

    def __init__(self, settings: Settings) -> None:
        self.scheduling = Tried(settings)
        self.asked = Asked()
        self.state: Any = self.scheduling
        self.state._any._abilities = self.asked
        self.pool(ANY)

    def pool(self, name: str, **more: Any) -> None:
        self.state._pools[name] = PoolState(f"id-{name}", name, **more)
        self.state._workers[name] = object()

    def server(self, alias: str, kind: str = "comfyui", **more: Any) -> ServerState:
        config = ServerConfig.model_validate(
            {"alias": alias, "type": kind, "url": "http://127.0.0.1:1", **more}
        )
        made = ServerState(config, picture_s=10.0)
        self.state._servers[alias] = made
        self.pool(alias)
        return made

    async def decide(self, *runs: Seen) -> list[tuple[str, str]]:
        self.state._mirror = Runs(*runs)
        self.again = await self.state._decide_once()
        await asyncio.sleep(0)
        return self.scheduling.started

    def end(self, run: str) -> None:
        self.scheduling.ended(run)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    def nothing(*_arguments: object, **_options: object) -> Any:
        return cast("Any", object())

    monkeypatch.setattr(dispatch, "get_client", nothing)
    monkeypatch.setattr(dispatch, "Warmth", nothing)
    return Bench(Settings(home=tmp_path))


async def test_a_server_takes_its_own_runs_in_order_up_to_its_limit(bench: Bench) -> None:
    bench.server("gpu")
    runs = [seen(f"r{n}", "gpu", place=-100 + n) for n in range(4)]
    assert await bench.decide(*reversed(runs)) == [("r0", "gpu"), ("r1", "gpu")]
    bench.end("r0")
    assert (await bench.decide(*runs[2:]))[2:] == [("r2", "gpu")]


async def test_a_pool_with_limit_one_gets_one_at_a_time(bench: Bench) -> None:
    bench.server("gpu")
    bench.pool("gpu", limit=1)
    assert await bench.decide(seen("a", "gpu"), seen("b", "gpu")) == [("a", "gpu")]


@pytest.mark.parametrize("which", ["gpu", ANY])
async def test_a_paused_pool_gives_nothing_away(bench: Bench, which: str) -> None:
    bench.server("gpu")
    bench.pool(which, paused=True)
    assert await bench.decide(seen("a", which)) == []


async def test_a_paused_server_takes_nothing_from_the_shared_pool_either(bench: Bench) -> None:
    bench.server("slow")
    bench.server("gpu")
    bench.pool("gpu", paused=True)
    assert await bench.decide(seen("a", ANY)) == [("a", "slow")]


async def test_a_paused_tier_waits_and_the_others_go_on(bench: Bench) -> None:
    bench.server("gpu")
    bench.pool("gpu", stopped_tiers=frozenset({"normal"}))
    runs = [seen("normal", "gpu"), seen("bulk", "gpu", tier=2)]
    assert await bench.decide(*runs) == [("bulk", "gpu")]


async def test_jobs_that_name_what_another_one_waits_for_do_not_stand_before_the_rest(
    bench: Bench,
) -> None:
    bench.server("gpu")
    bench.server("other")
    lora: dict[str, Any] = {"loras": [{"name": "version:7"}]}
    waits = replace(
        seen("waits", "gpu", place=100.0, **lora), tags=frozenset({lacks_tag("gpu", "version:7")})
    )
    same = replace(seen("same", "gpu", place=-9.0), wanted=wanted_by(lora))
    elsewhere = replace(seen("elsewhere", "other", place=-9.0), wanted=wanted_by(lora))
    free = seen("free", "gpu", place=-1.0)
    assert sorted(await bench.decide(waits, same, elsewhere, free)) == [
        ("elsewhere", "other"),
        ("free", "gpu"),
    ]
    bench.end("free")
    woken = replace(waits, waiting=replace(waits.waiting, place=0.0))
    assert ("same", "gpu") in await bench.decide(woken, same)


async def test_a_more_urgent_job_is_started_to_lift_the_download_that_others_wait_for(
    bench: Bench,
) -> None:
    bench.server("gpu")
    lora: dict[str, Any] = {"loras": [{"name": "version:7"}]}
    waits = replace(
        seen("waits", "gpu", place=100.0, **lora), tags=frozenset({lacks_tag("gpu", "version:7")})
    )
    urgent, same, later = (
        replace(seen(name, "gpu", place=-9.0, tier=tier), wanted=wanted_by(lora))
        for name, tier in (("urgent", 0), ("same", 1), ("later", 2))
    )
    assert await bench.decide(waits, urgent, same, later) == [("urgent", "gpu")]


async def test_a_run_that_is_not_due_is_looked_at_when_it_is(bench: Bench) -> None:
    bench.server("gpu")
    assert await bench.decide(seen("later", "gpu", place=500.0)) == []
    assert bench.again == pytest.approx(500.0, abs=30)


async def test_runs_for_any_spread_over_the_servers_and_none_is_taken_ahead(bench: Bench) -> None:
    bench.server("a")
    bench.server("b")
    started = await bench.decide(*[seen(f"r{n}", ANY, place=-100 + n) for n in range(5)])
    assert sorted(server for _, server in started) == ["a", "b"]
    assert [run for run, _ in started] == ["r0", "r1"]
    assert bench.again is not None
    assert bench.again < 1, "the last pictures may end any moment"


async def test_the_shared_pool_has_a_limit_of_its_own_if_somebody_sets_one(bench: Bench) -> None:
    for alias in ("a", "b", "c"):
        bench.server(alias)
    bench.pool(ANY, limit=2)
    runs = [seen(f"r{n}", ANY, place=-50 + n) for n in range(3)]
    assert [run for run, _ in await bench.decide(*runs)] == ["r0", "r1"]
    bench.end("r0")
    assert [run for run, _ in await bench.decide(*runs[2:])][2:] == ["r2"]


async def test_one_is_taken_ahead_from_the_shared_pool_once_the_last_is_nearly_done(
    bench: Bench,
) -> None:
    server = bench.server("a")
    runs = [seen("r0", ANY, place=-9), seen("r1", ANY, place=-8)]
    assert await bench.decide(*runs) == [("r0", "a")]
    taken = server.taken["r0"]
    taken.granted_at, taken.progress = time.monotonic() - 9.9, 0.99
    assert (await bench.decide(runs[1]))[1:] == [("r1", "a")]


async def test_a_server_of_another_kind_than_the_job_needs_is_passed_over(bench: Bench) -> None:
    bench.server("a-comfy", "comfyui")
    bench.server("b-forge", "forge")
    run = seen("r", ANY, sections={"forge": {}})
    assert await bench.decide(run) == [("r", "b-forge")]


async def test_a_server_that_lacks_something_is_passed_over_and_says_why(bench: Bench) -> None:
    bench.server("a")
    bench.server("b")
    bench.asked.lacking["a"] = Lack("no such model", final=True, until=time.monotonic() + 60)
    assert await bench.decide(seen("r", ANY)) == [("r", "b")]


async def test_a_job_nobody_can_do_is_started_so_that_it_says_so(bench: Bench) -> None:
    for alias in ("a", "b"):
        bench.server(alias)
        bench.asked.lacking[alias] = Lack("lacks it", final=True, until=time.monotonic() + 60)
    assert await bench.decide(seen("r", ANY)) == [("r", "")]


async def test_a_job_waits_for_a_server_that_is_only_away(bench: Bench) -> None:
    bench.server("a")
    bench.server("b")
    bench.asked.lacking["a"] = Lack("lacks it", final=True, until=time.monotonic() + 60)
    bench.asked.lacking["b"] = Lack("does not answer", until=time.monotonic() + 60)
    assert await bench.decide(seen("r", ANY)) == []


async def test_a_server_whose_address_was_changed_is_asked_again_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for alias in ("a", "b"):
        bench.server(alias)
        bench.asked.lacking[alias] = Lack("does not answer", until=time.monotonic() + 60)
    run = seen("r", ANY)
    assert await bench.decide(run) == []
    bench.asked.lacking.clear()
    assert await bench.decide(run) == [], "what was answered holds for a while"

    async def documents(*_kind: object, **_options: object) -> list[SimpleNamespace]:
        data = {"type": "comfyui", "url": "http://127.0.0.1:2"}
        return [SimpleNamespace(name=alias, data=data) for alias in ("a", "b")]

    client = SimpleNamespace(read_block_documents_by_type=documents)
    monkeypatch.setattr(bench.state._saved, "_client", client)
    await bench.state._saved.read_servers()
    assert await bench.decide(run) == [("r", "a")]


async def test_a_server_in_quarantine_gets_nothing_and_nothing_waits_for_it(bench: Bench) -> None:
    ill = bench.server("a")
    bench.server("b")
    ill.quarantined = "it does not answer"
    runs = [seen("own", "a"), seen("shared", ANY)]
    assert await bench.decide(*runs) == [("shared", "b")]


async def test_a_fault_that_speaks_against_a_server_puts_it_in_quarantine(bench: Bench) -> None:
    server = bench.server("a")
    await bench.decide(seen("r", "a"))
    bench.scheduling.hearing.hear("r", {"told": "r", "fault": "model_missing", "why": "x"})
    assert not server.quarantined
    bench.scheduling.hearing.hear("r", {"told": "r", "fault": "engine_unreachable", "why": "gone"})
    assert server.quarantined == "gone"
    for task in bench.state._tasks:
        task.cancel()


async def test_real_servers_spare_the_sandbox_unless_it_is_named(bench: Bench) -> None:
    bench.server("a-sandbox", sandbox=True)
    bench.server("real")
    named = seen("named", ANY, server="a-sandbox")
    started = await bench.decide(seen("r", ANY, place=-200), named)
    assert sorted(started) == [("named", "a-sandbox"), ("r", "real")]


async def test_runs_whose_checkpoint_is_loaded_go_first_and_the_others_are_told(
    bench: Bench,
) -> None:
    server = bench.server("gpu")
    server.used("b")
    bench.pool("gpu", limit=1)
    runs = [
        seen("first", "gpu", place=-50, checkpoint="a.safetensors"),
        *[
            seen(f"b{n}", "gpu", place=-40 + n, checkpoint="dir/b.safetensors [abcdef0123]")
            for n in range(9)
        ],
    ]
    assert await bench.decide(*runs) == [("b0", "gpu")]
    assert bench.state._mirror.passed == ["first"]


@pytest.mark.parametrize("pool", ["gpu", "downloads"])
async def test_a_run_that_is_here_already_is_taken_again_only_when_it_has_ended(
    bench: Bench, pool: str
) -> None:
    """The mirror may have read it before it was claimed; a second taking would never end."""
    bench.server("gpu")
    bench.pool("downloads")
    assert len(await bench.decide(seen("r", pool))) == 1
    assert len(await bench.decide(seen("r", pool))) == 1
    bench.end("r")
    assert len(await bench.decide(seen("r", pool))) == 2


async def test_a_run_of_somebodys_own_pool_is_simply_started(bench: Bench) -> None:
    bench.pool("mine")
    assert await bench.decide(seen("r", "mine")) == [("r", "")]


async def test_a_pool_of_no_server_has_a_limit_and_an_order_and_can_be_paused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = 0

    async def free(pool: PoolState) -> int | None:
        here = len(bench.state._own._taken[pool.name])
        return None if pool.limit is None else max(0, pool.limit - max(here, elsewhere))

    monkeypatch.setattr(bench.state._own, "free", free)
    bench.pool("downloads", limit=2, stopped_tiers=frozenset({"bulk"}))
    runs = [seen(f"r{n}", "downloads", place=-50 + n) for n in range(3)]
    urgent = seen("urgent", "downloads", tier=0, place=-1)
    stopped = seen("bulk", "downloads", tier=2, place=-90)
    assert await bench.decide(*runs, urgent, stopped) == [("urgent", ""), ("r0", "")]
    assert bench.again <= 2, "another host's run may end any moment"
    bench.end("r0")
    elsewhere = 2
    assert len(await bench.decide(*runs[1:])) == 2
    elsewhere = 1
    assert (await bench.decide(*runs[1:]))[2:] == [("r1", "")]
    bench.pool("downloads", paused=True)
    bench.end("r1")
    bench.end("urgent")
    assert len(await bench.decide(*runs[2:])) == 3


async def test_a_download_into_folders_of_one_host_is_left_to_that_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    bench.pool("downloads")
    runs = [
        replace(seen(host, "downloads"), tags=frozenset({f"host:{host}"}))
        for host in ("here", "there")
    ]
    assert await bench.decide(*runs, seen("shared", "downloads")) == [("here", ""), ("shared", "")]


async def test_a_job_that_may_run_somewhere_goes_on_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.server("a")
    bench.server("b")

    async def begun_on(job: str) -> set[str]:
        assert job == "job-r"
        return {"b"}

    monkeypatch.setattr(bench.state._tickets, "begun_on", begun_on)
    assert await bench.decide(replace(seen("r", ANY), again=True)) == [("r", "b")]


async def test_the_remote_job_of_a_cancelled_run_that_had_to_be_killed_is_stopped_by_the_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.server("gpu")
    await bench.decide(seen("r", "gpu"))
    asked: list[tuple[str, str]] = []
    stopped = asyncio.Event()

    async def settle_job(server: ServerConfig, job: str) -> None:
        asked.append((server.alias, job))
        await stopped.wait()

    monkeypatch.setattr(bench.state._tickets, "settle_job", settle_job)
    bench.scheduling.abandon("r")
    bench.scheduling.abandon("r")
    bench.scheduling.abandon("one of somebody else")
    await asyncio.sleep(0)
    assert asked == [("gpu", "job-r")]
    assert bench.scheduling.cancelling.still_there("r"), "Cancelling is shown until it has stopped"
    for task in bench.state._tasks:
        task.cancel()


async def test_what_the_host_knows_is_written_for_others_and_read_again(bench: Bench) -> None:
    server = bench.server("gpu")
    server.used("a")
    server.measured("a", 3.0)
    bench.state._mirror = Runs(seen("r", "gpu"))
    bench.state._write_state()
    told = read_state(bench.state._settings.run_folder)
    assert told["servers"]["gpu"]["loaded"] == ["a"]
    assert told["servers"]["gpu"]["picture_s"] == pytest.approx(server.picture_s, abs=0.001)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sd_xl_base_1.0.safetensors", "sd_xl_base_1.0"),
        ("sub dir\\Other Model (v1) [x].ckpt", "other model (v1) [x]"),
        ("a/b.safetensors [31e35c80fc]", "b"),
        ("plain", "plain"),
        ("sub dir/fresh (new) [2].safetensors", "fresh (new) [2]"),
        ("fresh (new) [2]", "fresh (new) [2]"),  # as Forge reports it
        ("sub dir/other [deadbeef00].safetensors [ac983c1424]", "other [deadbeef00]"),
    ],
)
def test_spellings_of_one_model_have_one_key(name: str, key: str) -> None:
    assert model_key(name) == key


async def test_a_server_mended_before_its_pool_was_resumed_is_known_when_its_jobs_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    async def servers() -> None:
        read.append("servers")

    async def pools(_wanted: object) -> None:
        read.append("pools")

    monkeypatch.setattr(bench.state._saved, "read_servers", servers)
    monkeypatch.setattr(bench.state._saved, "read_pools", pools)
    bench.state._pool_changed("id-gpu")
    await asyncio.gather(*bench.state._tasks)
    assert read == ["servers", "pools"]
