"""What runs follows the servers saved."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stablequeue.errors import Refused
from stablequeue.settings import Settings
from stablequeue.up.files import listen
from stablequeue.up.following import Following
from stablequeue.worker.pools import PoolList
from tests.support.waiting import wait_until
from tests.up.standins import NOTE, FakeApi, StandIns, notes

MADE = NOTE + 'note("made")'


class Bench:
    """What follows a fake API with stand-in processes."""

    def __init__(self, home: Path) -> None:
        self.home, self.api, self.said = home, FakeApi(), list[str]()
        (home / "run").mkdir()
        self.pools = PoolList(home / "run" / "pools.json")
        self.children = StandIns(Settings(home=home))
        self.children.programs["deployments"] = MADE
        self.following = Following(self.children, self.api.api(), self.pools, self.said.append)

    def save(self, alias: str, **more: Any) -> None:
        self.api.servers[alias] = {"type": "comfyui", "url": "http://127.0.0.1:1", **more}

    def run(self, check: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            try:
                await check()
            finally:
                await self.following.stop()

        asyncio.run(main())

    @property
    def made(self) -> int:
        return notes(self.home).count("made")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_saved_server_gets_its_deployment_and_its_worker_and_loses_them(bench: Bench) -> None:
    async def check() -> None:
        bench.save("gpu-a")
        await bench.following.begin()
        assert bench.pools() == ["any", "gpu-a"]
        await bench.following.look()
        assert bench.made == 0  # nothing changed
        bench.save("gpu-b")
        await bench.following.look()
        assert (bench.pools(), bench.made) == (["any", "gpu-a", "gpu-b"], 1)
        del bench.api.servers["gpu-a"]
        await bench.following.look()
        assert (bench.pools(), bench.made) == (["any", "gpu-b"], 2)

    bench.run(check)
    assert bench.said == ["Server gpu-b is ready.", "Server gpu-a is removed."]


def test_a_removed_server_with_jobs_left_keeps_its_worker_until_they_are_gone(
    bench: Bench,
) -> None:
    async def check() -> None:
        bench.save("gpu-a")
        await bench.following.begin()
        del bench.api.servers["gpu-a"]
        bench.api.extra_pools, bench.api.jobs = {"gpu-a"}, {"gpu-a": 2}
        await bench.following.look()
        assert (bench.pools(), bench.made) == (["any", "gpu-a"], 1)
        await bench.following.look()
        assert bench.made == 1  # it is not tried again and again
        bench.api.extra_pools, bench.api.jobs = set(), {}
        await bench.following.look()
        assert (bench.pools(), bench.made) == (["any"], 2)

    bench.run(check)


def test_deployments_that_cannot_be_made_say_why_and_are_not_tried_all_the_time(
    bench: Bench,
) -> None:
    broken = MADE + '; sys.exit("stablequeue: prefect.yaml is damaged")'
    bench.children.programs["deployments"] = broken

    async def check() -> None:
        await bench.following.begin()
        bench.save("gpu-a")
        with pytest.raises(Refused, match=r"prefect\.yaml is damaged"):
            await bench.following.look()
        await bench.following.look()
        assert (bench.pools(), bench.made) == (["any"], 1)
        bench.save("gpu-b")  # something else: it may work now
        bench.children.programs["deployments"] = MADE
        await bench.following.look()
        assert bench.pools() == ["any", "gpu-a", "gpu-b"]

    bench.run(check)


def test_the_sandbox_runs_once_a_sandbox_is_saved_on_the_port_it_is_saved_with(
    bench: Bench,
) -> None:
    with listen("127.0.0.1", 0) as taken:
        port: int = taken.getsockname()[1]
        bench.save("sandbox", url=f"http://127.0.0.1:{port}", sandbox=True)
        with pytest.raises(Refused, match=f"port {port}.*STABLEQUEUE_SANDBOX_PORT"):
            bench.run(bench.following.begin)

    async def check() -> None:
        await bench.following.begin()
        await asyncio.to_thread(
            wait_until, lambda: "sandbox begins" in notes(bench.home), why="the sandbox starts"
        )
        await bench.following.look()

    bench.run(check)
    assert notes(bench.home).count("sandbox begins") == 1


def test_a_damaged_list_of_pools_leaves_the_worker_with_the_last_one(tmp_path: Path) -> None:
    pools = PoolList(tmp_path / "pools.json")
    assert pools() == []
    pools.write(["any", "gpu-a"])
    assert pools() == ["any", "gpu-a"]
    pools.file.write_text('["any", ')
    assert pools() == ["any", "gpu-a"]
    pools.file.write_text('{"any": 1}')
    assert pools() == ["any", "gpu-a"]
