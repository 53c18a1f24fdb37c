"""Starting paused: `servers add --paused`, `up --paused`."""

from uuid import uuid4

import pytest

from stablequeue import up
from stablequeue.client import Client
from stablequeue.settings import Settings, load
from stablequeue.worker import WORKER_TYPE
from tests.cli.conftest import Run


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_server_saved_paused_has_a_paused_pool_before_anybody_serves_it(run: Run) -> None:
    alias = f"gpu-{uuid4().hex[:12]}"
    ran = run(
        *("servers", "add", alias, "--type", "comfyui", "--url", "http://127.0.0.1:9"),
        *("--no-test", "--paused"),
    )
    assert ran.code == 0
    with Client(load()) as queue:
        pool = queue.session.api.pool(alias)
        assert (pool.paused, pool.type) == (True, WORKER_TYPE)
        queue.resume(alias)
        run("servers", "add", alias, "--update", "--no-test", "--paused")
        assert queue.session.api.pool(alias).paused


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_name_of_our_own_is_refused_and_its_pool_goes_on(run: Run) -> None:
    with Client(load()) as queue:
        queue.session.api.begin_paused("any", kind=WORKER_TYPE)
        queue.resume("any")
        command = ["servers", "add", "any", "--type", "comfyui", "--url", "http://127.0.0.1:9"]
        assert run(*command, "--no-test", "--paused").code == 2
        assert not queue.session.api.pool("any").paused


@pytest.mark.prefect
def test_every_pool_of_ours_is_paused_at_a_paused_start(online: str) -> None:
    with Client(load()) as queue:
        up.pause_all(queue.session.api)
        paused = {pool.name: pool.paused for pool in queue.session.api.pools(kind=WORKER_TYPE)}
        assert paused[online]
        assert all(paused.values())
        for name in paused:
            queue.session.api.resume_pool(name)


def test_up_is_told_to_start_paused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def instead(_settings: Settings, *, say: object, paused: bool) -> int:
        del say
        asked.append(paused)
        return 0

    monkeypatch.setattr(up, "run", instead)
    run("up")
    run("up", "--paused")
    assert asked == [False, True]
