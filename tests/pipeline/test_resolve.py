"""Before generating: which server, and can it do the job."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from stablequeue.engines.base import ServerInfo
from stablequeue.errors import (
    EngineAuthFailed,
    EngineBusy,
    EngineUnreachable,
    JobRejected,
    ModelMissing,
    NotFound,
    QueueError,
    SettingsError,
    StoreUnavailable,
    Unsupported,
)
from stablequeue.pipeline import resolve as resolve_module
from stablequeue.pipeline.job import open_job
from stablequeue.pipeline.resolve import choose_server, resolve
from stablequeue.request import parse_request
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.servers import ServerConfig
from stablequeue.storage import FolderStoreConfig, open_store
from stablequeue.wire import current_job
from tests.pipeline.conftest import SMALL, Bench, OpenJob, config_of
from tests.pipeline.scripted import HANG, Scripted

REQUEST = parse_request(SMALL)
Saved = Callable[..., ServerConfig]


def info(queued: int = 0) -> ServerInfo:
    return ServerInfo(app_type="comfyui", flavour="ComfyUI", version="1", queue_length=queued)


def missing(alias: str, *alike: str) -> ModelMissing:
    return ModelMissing(alias, "checkpoint", "base", alike)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Give a function that saves a server answering so."""
    engines: dict[str, Scripted] = {}

    def opened(server: ServerConfig) -> Scripted:
        return engines[server.alias]

    def save(alias: str, answer: Any = None, *, queued: int = 0, resolved: Any = None) -> Any:
        fields = {"alias": alias, "type": "comfyui", "url": "http://127.0.0.1:1"}
        server = ServerConfig.model_validate(fields)
        engine = engines[alias] = Scripted(server)
        engine.info = info(queued) if answer is None else answer
        engine.resolution = resolved or engine.resolution
        return server

    monkeypatch.setattr(resolve_module, "open_engine", opened)
    return save


async def chosen(*servers: ServerConfig, ours: dict[str, int] | None = None) -> str:
    return (await choose_server(REQUEST, servers, ours=ours or {})).alias


async def refused(*servers: ServerConfig) -> QueueError:
    with pytest.raises(QueueError) as error:
        await choose_server(REQUEST, servers, ours={})
    return error.value


async def test_the_least_busy_server_is_chosen(saved: Saved) -> None:
    assert await chosen(saved("a", queued=3), saved("b", queued=1), saved("c", queued=2)) == "b"


async def test_our_own_jobs_count_where_a_servers_queue_does_not_show_them(saved: Saved) -> None:
    servers = saved("a"), saved("b", queued=1)
    assert await chosen(*servers, ours={"a": 2}) == "b"


async def test_of_equally_busy_ones_the_one_with_fewest_of_ours_then_the_first_name(
    saved: Saved,
) -> None:
    servers = saved("c", queued=2), saved("b", queued=2), saved("a", queued=2)
    assert await chosen(*servers) == "a"
    assert await chosen(*servers, ours={"a": 1, "b": 2}) == "c"


@pytest.mark.parametrize(
    "answer",
    [
        EngineUnreachable("b", "no connection"),
        EngineBusy("b", "starting"),
        EngineAuthFailed("b", "401"),
        missing("b"),
    ],
)
async def test_one_that_cannot_take_it_leaves_it_to_a_busier_one(
    saved: Saved, answer: QueueError
) -> None:
    assert await chosen(saved("a", queued=50), saved("b", answer)) == "a"


async def test_one_that_lacks_the_model_is_asked_only_for_its_suggestions(saved: Saved) -> None:
    error = await refused(
        saved("a", resolved=missing("a", "base-2")),
        saved("b", resolved=missing("b", "base-2", "base-3")),
    )
    assert isinstance(error, ModelMissing)
    assert (error.server, error.suggestions) == ("any", ("base-2", "base-3"))


async def test_one_that_may_come_back_makes_it_worth_trying_again(saved: Saved) -> None:
    error = await refused(saved("a", missing("a")), saved("b", EngineUnreachable("b", "away")))
    assert isinstance(error, EngineUnreachable)
    assert error.retryable
    assert "b: away" in str(error)


async def test_when_every_one_refuses_our_credentials_that_is_said(saved: Saved) -> None:
    servers = [saved(alias, EngineAuthFailed(alias, "401")) for alias in "ab"]
    error = await refused(*servers)
    assert isinstance(error, EngineAuthFailed)
    assert "a: 401" in str(error)
    assert "b: 401" in str(error)


async def test_when_none_can_do_it_each_says_why(saved: Saved) -> None:
    error = await refused(
        saved("a", missing("a")), saved("b", resolved=Unsupported("b", "sampler", "is not there"))
    )
    assert isinstance(error, JobRejected)
    assert not error.retryable
    assert "there is no 'base'" in str(error)
    assert "sampler: is not there" in str(error)


async def test_without_any_server_the_way_to_add_one_is_told() -> None:
    error = await refused()
    assert isinstance(error, NotFound)
    assert "stablequeue servers add" in str(error)


async def test_one_that_never_answers_does_not_hold_the_job_up(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_module, "_PROBE_WITHIN_S", 0.02)
    assert await chosen(saved("a", queued=9), saved("b", HANG)) == "a"
    error = await refused(saved("b", HANG))
    assert isinstance(error, EngineUnreachable)
    assert "no answer within" in str(error)


async def test_a_server_nobody_can_speak_with_does_not_keep_a_job_from_the_others() -> None:
    fields = {"alias": "odd", "type": "telepathy", "url": "http://127.0.0.1:1"}
    odd = ServerConfig.model_validate(fields)
    with serve_sandbox("comfyui") as sandbox:
        assert await chosen(odd, config_of(sandbox, "gpu-a")) == "gpu-a"
    error = await refused(odd)
    assert "there is no engine 'telepathy'" in str(error)
    assert not error.retryable


@contextmanager
def both() -> Generator[tuple[ServerConfig, ServerConfig]]:
    """Serve one server of each protocol."""
    with serve_sandbox("comfyui") as comfyui, serve_sandbox("forge") as forge:
        yield config_of(comfyui, "comfy"), config_of(forge, "forge")


async def test_a_job_of_one_kind_goes_to_that_kind_only() -> None:
    request = parse_request({**SMALL, "sections": {"forge": {"payload": {"tiling": True}}}})
    with both() as servers:
        assert (await choose_server(request, servers, ours={"forge": 5})).alias == "forge"
        with pytest.raises(JobRejected, match="this job needs forge, this is comfyui"):
            await choose_server(request, servers[:1], ours={})


async def test_a_real_server_without_the_model_is_passed_over() -> None:
    request = parse_request({**SMALL, "checkpoint": "nowhere.safetensors"})
    with both() as servers, pytest.raises(ModelMissing, match=r"nowhere\.safetensors"):
        await choose_server(request, servers, ours={})


async def test_a_real_server_that_is_gone_is_passed_over() -> None:
    with both() as servers:
        gone = servers[0].model_copy(update={"alias": "gone"})
        with serve_sandbox("comfyui") as sandbox:
            gone = config_of(sandbox, "gone")
        assert (await choose_server(REQUEST, [gone, *servers], ours={"comfy": 1})).alias == "forge"


async def test_resolving_learns_what_the_server_is_and_its_exact_names(
    sandbox: Sandbox, open_for: OpenJob
) -> None:
    async with open_for(config_of(sandbox)) as job:
        await resolve(job)
        assert job.info
        assert job.info.sandbox
        assert job.resolution
        assert job.resolution.checkpoint.startswith("sandbox-sd15.safetensors")
        assert current_job.get() != "-", "log lines carry the job"
    assert current_job.get() == "-"


async def test_a_store_that_fails_parks_before_the_server_is_asked(bench: Bench) -> None:
    full = FolderStoreConfig(folder=bench.settings.pictures_folder, keep_free_mib=2**40)
    job = bench.job(store=open_store(full))
    job.info = job.resolution = None
    with pytest.raises(StoreUnavailable):
        await resolve(job)
    assert job.info is None


async def test_a_job_sent_to_a_server_of_another_kind_is_rejected(bench: Bench) -> None:
    job = bench.job(sections={"forge": {"payload": {"tiling": True}}})
    with pytest.raises(Unsupported, match="this job needs forge, this is comfyui"):
        await resolve(job)


async def test_a_job_needs_an_engine_for_its_server(bench: Bench) -> None:
    server = bench.engine.server.model_copy(update={"type": "telepathy"})
    opening = open_job(
        bench.job().stored,
        server,
        settings=bench.settings,
        catalogue=bench.catalogue,
        store=open_store(bench.settings),
    )
    with pytest.raises(SettingsError, match="there is no engine 'telepathy'"):
        async with opening:
            pass
    assert current_job.get() == "-"
