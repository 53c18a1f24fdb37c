"""The Prefect project that travels with the library, from a checkout and from a wheel."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from stablequeue.project import NAMES, project_dir

WHEEL = os.environ.get("STABLEQUEUE_WHEEL", "")
CHECKOUT = Path(__file__).resolve().parents[2]


def python(
    code: str, folder: Path, *, executable: str = sys.executable, script: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `code` in `folder`, where nothing of the checkout is on the path by itself."""
    command = [executable, "-c", code]
    if script:
        (folder / "theirs.py").write_text(code)
        command = [executable, str(folder / "theirs.py")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


USE = (
    "from stablequeue.project import activate, project_dir\n"
    "assert activate() == project_dir()\n"
    "activate()\n"
    "import flows, tasks, blocks, blocks.server, tasks.policy\n"
    "print(tasks.__file__)"
)
"""What a flow of somebody else's does before it composes our tasks."""


def test_a_checkout_is_its_own_project() -> None:
    assert project_dir() == CHECKOUT
    for name in NAMES:
        assert (project_dir() / name).is_dir()
    assert (project_dir() / "prefect.yaml").is_file()


@pytest.mark.parametrize("script", [False, True])
def test_another_folder_can_use_our_tasks(tmp_path: Path, script: bool) -> None:
    done = python(USE, tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(CHECKOUT / "tasks" / "__init__.py")


@pytest.mark.parametrize("script", [False, True])
def test_a_process_of_ours_moves_out_of_whatever_folder_it_was_started_in(
    tmp_path: Path, script: bool
) -> None:
    (tmp_path / "tasks.py").write_text("raise AssertionError")
    code = (
        "import os\n"
        "from stablequeue.project import move_in, project_dir\n"
        "assert move_in() == project_dir()\n"
        "assert os.getcwd() == str(project_dir())\n"
        "import tasks.policy\n"
        "print(tasks.__file__)"
    )
    done = python(code, tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(CHECKOUT / "tasks" / "__init__.py")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["{}/__init__.py", "{}/mine.py", "{}.py"])
@pytest.mark.parametrize("script", [False, True])
def test_a_folder_with_a_package_of_the_same_name_is_refused_with_advice(
    tmp_path: Path, name: str, file: str, script: bool
) -> None:
    theirs = tmp_path / file.format(name)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("")
    done = python(USE, tmp_path, script=script)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("stablequeue.errors.SettingsError:")
    assert repr(name) in last
    assert str(tmp_path) in last
    assert "rename" in last


def test_a_package_of_theirs_imported_before_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tasks").mkdir(parents=True)
    (elsewhere / "tasks" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(1, {str(elsewhere)!r}); import tasks\n{USE}"
    done = python(code, tmp_path)
    assert done.returncode == 1
    assert str(elsewhere / "tasks") in done.stderr


def test_a_folder_of_data_with_the_same_name_is_fine(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "notes.txt").write_text("not Python")
    assert python(USE, tmp_path).returncode == 0


def test_the_pull_step_changes_into_the_project(tmp_path: Path) -> None:
    code = (
        "import os; from stablequeue.project import enter\n"
        "print(enter()['directory'] == os.getcwd(), os.getcwd())"
    )
    assert python(code, tmp_path).stdout.split() == ["True", str(CHECKOUT)]


@pytest.mark.skipif(not WHEEL, reason="set STABLEQUEUE_WHEEL to a built wheel")
@pytest.mark.timeout(300)
def test_the_wheel_brings_the_project_and_puts_nothing_at_the_top(tmp_path: Path) -> None:
    """Installed in a virtual environment of its own; what it depends on comes from this one."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=os.name == "posix")
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    executable = str(scripts / Path(sys.executable).name)
    found = python(
        "import sysconfig; print(sysconfig.get_path('purelib'))", tmp_path, executable=executable
    )
    site = Path(found.stdout.strip())
    installer = (
        ["uv", "pip", "install", "--python", executable]
        if shutil.which("uv")
        else [sys.executable, "-m", "pip", "--python", executable, "install"]
    )
    installed = subprocess.run(
        [*installer, "--no-deps", WHEEL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    for name in (*NAMES, "deployments", "prefect.yaml"):
        assert not (site / name).exists(), name
        assert (site / "stablequeue" / "project" / name).exists(), name
    ours = python("import httpx; print(httpx.__path__[0])", tmp_path).stdout.strip()
    (site / "dependencies.pth").write_text(str(Path(ours).parent))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = python(USE, elsewhere, executable=executable)
    assert done.returncode == 0, done.stderr
    project = site / "stablequeue" / "project"
    assert done.stdout.strip() == str(project / "tasks" / "__init__.py")
    load = (
        "from stablequeue.project import enter\nenter()\n"
        "from prefect.flows import load_flow_from_entrypoint as load\n"
        "print(load('flows/generate.py:generate', use_placeholder_flow=False).name)"
    )
    done = python(load, elsewhere, executable=executable)
    assert done.stdout.strip() == "generate", done.stderr
