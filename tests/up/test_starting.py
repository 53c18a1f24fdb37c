"""`up` as a whole, with small programs standing in for Prefect and the workers."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stablequeue import up
from stablequeue.errors import PrefectUnreachable, Refused
from stablequeue.secrets import private_folder
from stablequeue.settings import Settings
from stablequeue.up.discover import Found
from stablequeue.up.files import listen
from tests.support.waiting import wait_until
from tests.up.standins import NOTE, FakeApi, StandIns, notes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


class NoCaretaker:
    """Takes care of nothing."""

    def __init__(self, *_arguments: object) -> None:
        """Nothing to keep."""

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Bench:
    """An `up` of stand-ins."""

    settings: Settings
    children: StandIns
    api: FakeApi
    said: list[str] = field(default_factory=list[str])
    when_said: dict[str, Callable[[], object]] = field(
        default_factory=dict[str, Callable[[], object]]
    )

    def say(self, text: str) -> None:
        self.said.append(text)
        for beginning, act in self.when_said.items():
            if text.startswith(beginning):
                act()

    def run(self) -> int:
        return up.run(self.settings, say=self.say)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    home = private_folder(tmp_path / "home")
    settings = Settings(home=home, files_port=0, sandbox_port=0)
    bench = Bench(settings, StandIns(settings), FakeApi())
    bench.api.servers["gpu-a"] = {"type": "comfyui", "url": "http://127.0.0.1:1"}

    def children(_settings: Settings) -> StandIns:
        return bench.children

    def api(_settings: Settings) -> FakeApi:
        return bench.api

    async def nobody() -> list[object]:
        return []

    monkeypatch.setattr(up, "Children", children)
    monkeypatch.setattr(up, "open_prefect", api)
    monkeypatch.setattr(up, "Caretaker", NoCaretaker)
    monkeypatch.setattr(up, "discover", nobody)
    yield bench
    assert not (home / "run" / "up.json").exists()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_worker_and_the_deployments_begin_while_the_server_starts(bench: Bench) -> None:
    facts: dict[str, object] = {}

    def ready() -> None:
        text = (bench.settings.run_folder / "up.json").read_text()
        facts.update(json.loads(text))
        served = 'worker serves ["any", "gpu-a"]'
        wait_until(lambda: served in notes(bench.settings.home), why="the worker has its list")
        interrupt()

    bench.when_said["Ready"] = ready
    assert bench.run() == 0
    assert facts["ready"] is True
    assert facts["pid"] == os.getpid()
    told = notes(bench.settings.home)
    assert told.index("worker begins") < told.index("server answers")
    assert told.index("server answers") < told.index("deployments made")
    (begin,) = [line for line in told if line.startswith("deployments begin")]
    assert "--ahead" in begin  # a first start: there is no database yet
    assert "--sandbox-url http://127.0.0.1:" in begin
    assert bench.said[-1] == "Stopped."


def test_a_later_start_does_not_import_prefect_to_see_that_nothing_changed(bench: Bench) -> None:
    private_folder(bench.settings.home / "prefect").joinpath("prefect.db").touch()
    bench.when_said["Ready"] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert bench.run() == 0
    assert not any("--ahead" in line for line in notes(bench.settings.home))


def test_everything_stops_when_interrupted_while_it_starts(bench: Bench) -> None:
    bench.children.programs["prefect"] = "import time; time.sleep(60)"
    bench.when_said["Starting"] = interrupt
    assert bench.run() == 0
    assert bench.said == ["Starting Prefect's server ...", "Stopping ...", "Stopped."]


def test_a_server_that_does_not_start_says_why_and_is_not_tried_again(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.children.programs["prefect"] = (
        "import sys; sys.exit('stablequeue: port 4200 is taken; choose another')"
    )
    with pytest.raises(PrefectUnreachable, match="does not start: port 4200 is taken; choose"):
        bench.run()
    assert capsys.readouterr().err == ""


def test_a_taken_port_for_thumbnails_is_named_with_its_setting(bench: Bench) -> None:
    with listen("127.0.0.1", 0) as taken:
        port: int = taken.getsockname()[1]
        bench.settings = bench.settings.model_copy(update={"files_port": port})
        with pytest.raises(Refused, match=rf"port {port}, for thumbnails.*STABLEQUEUE_FILES_PORT"):
            bench.run()


def test_a_second_one_for_the_same_home_is_refused(bench: Bench) -> None:
    refused: list[str] = []

    def again() -> None:
        with pytest.raises(Refused, match="already runs for") as caught:
            up.run(bench.settings)
        refused.append(str(caught.value))
        interrupt()

    bench.when_said["Ready"] = again
    assert bench.run() == 0
    assert str(bench.settings.home) in refused[0]


def test_a_server_on_a_free_port_takes_the_same_one_when_it_starts_again(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"prefect_port": 0})
    bench.children.programs["prefect"] = bench.children.programs["prefect"].replace(
        'until("worker-begins")', 'note("port " + os.environ.get("STABLEQUEUE_PREFECT_PORT", ""))'
    )

    def kill_it() -> None:
        facts = json.loads((bench.settings.run_folder / "prefect.json").read_text())
        os.kill(facts["pid"], signal.SIGKILL)
        wait_until(lambda: "port 9" in notes(bench.settings.home), why="it starts again")
        interrupt()

    bench.when_said["Ready"] = lambda: asyncio.get_running_loop().run_in_executor(None, kill_it)
    assert bench.run() == 0


def test_warnings_go_to_the_terminal_and_everything_to_the_log(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = logging.getLogger("stablequeue")  # as nobody has set it up yet in this process
    monkeypatch.setattr(ours, "handlers", [])
    ours.setLevel(logging.NOTSET)

    def speak() -> None:
        up.logger.info("a detail")
        up.logger.warning("a warning")
        interrupt()

    bench.when_said["Ready"] = speak
    assert bench.run() == 0
    log = (bench.settings.home / "logs" / "up.log").read_text()
    assert "INFO stablequeue.up: a detail" in log
    assert "WARNING stablequeue.up: a warning" in log
    assert capsys.readouterr().err == "a warning\n"


def test_the_thumbnails_port_takes_requests_when_it_says_ready(bench: Bench) -> None:
    answered: list[bool] = []

    def ask() -> None:
        facts = json.loads((bench.settings.run_folder / "up.json").read_text())
        port = int(facts["files"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            answered.append(True)
        interrupt()

    bench.when_said["Ready"] = ask
    assert bench.run() == 0
    assert answered == [True]


def test_what_was_found_on_usual_ports_is_offered_unless_it_is_saved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def two() -> list[Found]:
        return [Found("comfyui", "http://127.0.0.1:1"), Found("forge", "http://127.0.0.1:7860")]

    monkeypatch.setattr(up, "discover", two)
    bench.when_said["Found"] = interrupt
    assert bench.run() == 0
    (offered,) = [line for line in bench.said if line.startswith("Found")]
    assert "http://127.0.0.1:7860" in offered
    assert "stablequeue servers add forge" in offered


def test_a_part_that_fails_later_stops_everything_with_its_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(NoCaretaker):
        async def run(self) -> None:
            raise Refused("the catalogue is damaged")

    monkeypatch.setattr(up, "Caretaker", Broken)
    with pytest.raises(Refused, match="the catalogue is damaged"):
        bench.run()
    assert "Stopping ..." in bench.said
    assert "Stopped." not in bench.said


def test_somebody_elses_prefect_is_used_and_none_started(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"prefect_api_url": bench.api.url})
    bench.children.programs["deployments"] = NOTE + 'note("deployments made")'
    bench.when_said["Ready"] = interrupt
    assert bench.run() == 0
    assert "server begins" not in notes(bench.settings.home)
    assert "deployments made" in notes(bench.settings.home)


def test_an_api_that_does_not_answer_at_once_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [PrefectUnreachable("not yet")]

    def healthy() -> bool:
        if faults:
            raise faults.pop()
        return True

    monkeypatch.setattr(bench.api, "healthy", healthy)
    bench.when_said["Ready"] = interrupt
    assert bench.run() == 0
    assert faults == []
