"""A job whose process dies at every moment there is ends with its picture stored once.

The moments are enumerated, not sampled: before and after every HTTP call to the engine, every
commit of the catalogue and every rename (see `tests/support/jobrun.py`).
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stablequeue.catalogue import AttemptState, open_catalogue
from stablequeue.ids import new_job_id
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.settings import load

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform == "win32", reason="jobs run in forks, which Windows lacks"),
]

MOST_POINTS = 300
LANES = 4


class JobRunner:
    """Runs jobs in forked processes that can be told to die."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.trace = home / "trace.txt"
        self._process = subprocess.Popen(
            [sys.executable, str(Path("tests/support/jobrun.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )

    def run(
        self, command: dict[str, Any], *, die_at: int = -1, here: bool = False
    ) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.trace.unlink(missing_ok=True)
        full = {
            **command,
            "home": str(self.home),
            "trace": str(self.trace),
            "die_at": die_at,
            "here": here,
        }
        self._process.stdin.write(json.dumps(full) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def moments(self) -> list[str]:
        """What the last run reached, in order."""
        lines = self.trace.read_text(encoding="utf-8").splitlines()
        return [line.split(" ", 1)[1] for line in lines]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


def _command(protocol: str, sandbox: Sandbox, seed: int) -> dict[str, Any]:
    return {
        "server": {"alias": "peer", "type": protocol, "url": sandbox.url},
        "job_id": new_job_id(),
        "request": {
            "prompt": "a harbour",
            "width": 64,
            "height": 64,
            "steps": 1,
            "seed": seed,
            "checkpoint": "sandbox-sd15.safetensors",
        },
    }


@pytest.mark.parametrize("first", range(LANES))
@pytest.mark.parametrize("protocol", ["comfyui", "forge"])
def test_a_process_may_die_at_every_moment_and_the_picture_is_made_and_stored_once(
    protocol: str, first: int, tmp_path: Path
) -> None:
    """Go through every fourth moment, so that four processes share them."""
    home = tmp_path / "home"
    home.mkdir()
    runner = JobRunner(home)
    try:
        with serve_sandbox(protocol) as server:
            # What is slow happens once before: the catalogue's migration, the model's load.
            assert runner.run(_command(protocol, server, seed=1), here=True)["ok"]
            died_at, whole = _die_everywhere(protocol, runner, server, first)
    finally:
        runner.close()

    assert whole.count("before commit") > 4
    assert sum(moment.startswith("after os.") for moment in whole) > 1
    assert len(died_at) > 8


def _die_everywhere(
    protocol: str, runner: JobRunner, server: Sandbox, first: int
) -> tuple[list[str], list[str]]:
    """Return the moments it died at, and all those of a whole job: the last, which did not die."""
    died_at: list[str] = []
    catalogue = open_catalogue(load({"home": str(runner.home)}).catalogue)
    for point in range(first, MOST_POINTS, LANES):
        command = _command(protocol, server, seed=1000 + point)
        before = len(server.card.generations)
        died = runner.run(command, die_at=point)
        if not died["died"]:
            assert died["ok"], died
            break
        moment = runner.moments()[-1]
        died_at.append(moment)

        after = runner.run(command)

        assert after.get("ok"), (moment, after)
        assets = catalogue.assets(command["job_id"])
        assert len(assets) == 1, moment
        assert len(server.card.generations) - before == 1, f"made again after: {moment}"
        assert len(_files_of(runner.home, assets[0].key)) == 1, moment
        states = Counter(attempt.state for attempt in catalogue.attempts(command["job_id"]))
        assert states[AttemptState.STORED] == 1, moment
        assert not states[AttemptState.OPEN], moment
        assert not states[AttemptState.COLLECTED], moment
    else:
        pytest.fail("the job never came to its end")
    catalogue.close()
    assert not list((runner.home / "spool").rglob("*.*")), "left in the spool"
    return died_at, runner.moments()


def _files_of(home: Path, key: str) -> list[Path]:
    """Every stored file that carries the job's short id, numbered copies included."""
    folder = (home / "pictures" / key).parent
    short = Path(key).stem.rsplit("-", 2)[1]
    return [path for path in folder.iterdir() if f"-{short}-" in path.name]
