"""Whether a run's process lives, asked of the system and not of a number."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from stablequeue.errors import Refused
from stablequeue.settings import Settings
from stablequeue.worker import presence
from stablequeue.worker.presence import is_here, is_present, kill, present, process_name, sweep

HOLDER = (
    "import sys; from pathlib import Path; from stablequeue.settings import Settings;"
    "from stablequeue.worker.presence import present\n"
    "with present(Settings(home=Path(sys.argv[1])), sys.argv[2]):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_run_is_present_while_its_process_lives_however_it_ends(settings: Settings) -> None:
    run = str(uuid4())
    assert not is_present(settings, run)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(settings.home), run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert is_present(settings, run)
        assert is_present(settings, run)  # looking changes nothing
        assert not is_present(settings, str(uuid4()))
        kill(holder.pid)
        holder.wait()
        assert not is_present(settings, run)
    kill(holder.pid)  # gone already: nothing happens


def test_two_processes_never_work_on_one_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_LOOKING_TAKES_S", 0.0)
    run = str(uuid4())
    with (
        present(settings, run),
        pytest.raises(Refused, match="another process"),
        present(settings, run),
    ):
        pass
    with present(settings, run):  # free again
        assert is_present(settings, run)


@pytest.mark.parametrize("run", ["", "../../etc/passwd", "x"])
def test_only_a_run_id_names_a_lock(settings: Settings, run: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        is_present(settings, run)


def test_names_of_processes_say_where_they_are() -> None:
    assert is_here(process_name(123))
    assert process_name(123) == f"{socket.gethostname()}:123"
    for other in ("", "123", "elsewhere:123", f"{socket.gethostname()}:", "host:x", "a:b:c"):
        assert not is_here(other), other


def test_old_locks_are_swept_and_held_ones_stay(settings: Settings) -> None:
    old, held, new = (str(uuid4()) for _ in range(3))
    for run in (old, new):
        with present(settings, run):
            pass
    with present(settings, held):
        for run in (old, held):
            os.utime(settings.run_folder / "runs" / f"{run}.lock", (0, 0))
        sweep(settings)
        left = {path.stem for path in (settings.run_folder / "runs").glob("*.lock")}
    assert old not in left
    assert held in left
