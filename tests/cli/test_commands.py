"""The tree of commands: quick, documented, never a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from stablequeue.cli import launch as launching
from stablequeue.cli.app import COMMANDS, GROUPS, Command, build
from stablequeue.cli.example import example_settings
from stablequeue.cli.launch import globals_behind, lone_hyphens
from stablequeue.cli.reference import reference
from stablequeue.settings import Settings
from tests.cli.conftest import NOWHERE, Run

ROOT = Path(__file__).parents[2]
ALL: list[tuple[list[str], Command]] = [
    *(([], command) for commands in COMMANDS.values() for command in commands),
    *(([name], command) for name, (_, _, commands) in GROUPS.items() for command in commands),
]


@pytest.mark.parametrize(("group", "command"), ALL, ids=lambda value: str(value)[:40])
def test_every_command_explains_itself_as_the_list_does(group: list[str], command: Command) -> None:
    app = build(imported=True)
    for name in [*group, command.name]:
        app = app[name]
    function = app.default_command
    assert function is not None
    assert (function.__doc__ or "").strip().splitlines()[0] == command.help


def test_the_command_reference_is_current() -> None:
    written = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run: make docs"


def test_the_example_settings_are_current_and_name_every_setting() -> None:
    text = example_settings()
    assert (ROOT / "docs" / "stablequeue.example.yaml").read_text(encoding="utf-8") == text
    lines = [line[1:] for line in text.splitlines() if re.match(r"#(?:  )*[^\s#]", line)]
    data = yaml.safe_load("\n".join(lines))
    assert_every_setting_is_named(Settings, data)
    assert Settings.model_validate(data).s3.bucket == ""


def assert_every_setting_is_named(model: type[BaseModel], data: Any) -> None:
    assert list(data) == list(model.model_fields)
    for name, info in model.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            assert_every_setting_is_named(section, data[name])


def test_options_of_every_command_may_stand_in_front() -> None:
    assert globals_behind(["--home", "h", "-v", "ls", "-a"]) == ["ls", "-a", "--home", "h", "-v"]
    assert globals_behind(["servers", "--json", "ls"]) == ["servers", "ls", "--json"]
    assert globals_behind(["-q", "submit", "--", "-x"]) == ["submit", "-q", "--", "-x"]
    assert globals_behind(["submit", "--json"]) == ["submit", "--json"]
    assert globals_behind(["--version"]) == ["--version"]
    assert globals_behind(["--home"]) == ["--home"]


def test_a_lone_hyphen_is_never_taken_for_an_option() -> None:
    assert lone_hyphens(["submit", "--from", "-"]) == ["submit", "--from=-"]
    assert lone_hyphens(["submit", "-", "--wait"]) == ["submit", "--wait", "--", "-"]
    assert lone_hyphens(["submit", "--wait", "-"]) == ["submit", "--wait", "--", "-"]
    assert lone_hyphens(["submit", "--seed=1", "-"]) == ["submit", "--seed=1", "--", "-"]
    assert lone_hyphens(["submit", "--", "-"]) == ["submit", "--", "-"]


def modules_after(*arguments: str, home: Path) -> set[str]:
    """Return the modules a command has imported when it is done."""
    code = (
        "import sys, json\n"
        "from stablequeue.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print('\\n' + json.dumps([code, sorted(sys.modules)]))\n"
    )
    environment = {
        **os.environ,
        "STABLEQUEUE_HOME": str(home),
        "STABLEQUEUE_PREFECT_API_URL": NOWHERE,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    modules = modules_after("--help", home=tmp_path)
    heavy = {"httpx", "pydantic", "prefect", "sqlmodel", "sqlalchemy", "yaml", "PIL", "asyncio"}
    assert not heavy & modules
    assert not {"rich.progress", "rich.markdown", "rich.syntax", "pygments"} & modules
    assert {name for name in modules if name.startswith("stablequeue.")} <= {
        "stablequeue.cli",
        "stablequeue.cli.app",
        "stablequeue.cli.common",
        "stablequeue.cli.launch",
        "stablequeue.cli.quick",
        "stablequeue.cli.screen",
        "stablequeue.cli.text",
        "stablequeue.errors",
        "stablequeue.hiding",
    }


def test_listing_jobs_imports_neither_prefect_nor_a_database_library(tmp_path: Path) -> None:
    home = tmp_path / "home"
    modules_after("submit", "a fox", home=home)  # makes the catalogue
    modules = modules_after("ls", home=home)
    heavy = {"prefect", "sqlmodel", "sqlalchemy", "alembic", "PIL", "boto3", "websockets"}
    assert not heavy & modules
    assert not {"stablequeue.engines.base", "stablequeue.request", "httpx._main", "h2"} & modules
    assert "httpx" in modules


def test_the_library_offers_its_names_without_importing_them(tmp_path: Path) -> None:
    code = (
        "import sys, stablequeue\n"
        "assert not {'pydantic', 'httpx'} & set(sys.modules)\n"
        "print(stablequeue.Client.__name__, stablequeue.GenerationRequest.__name__,"
        " stablequeue.__version__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("Client GenerationRequest 0.")
    del tmp_path


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").out.startswith("stablequeue 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sbmit"], "there is no command 'sbmit'. Did you mean 'submit'? See: stablequeue --help"),
        (["servers", "ad"], "Did you mean 'add'? See: stablequeue servers --help"),
        (["submit", "a", "--sede", "1"], "Did you mean --seed? See: stablequeue submit --help"),
        (["submit", "a", "--seed", "x"], "See: stablequeue submit --help"),
        (["show"], "See: stablequeue show --help"),
        (["submit", "a", "b"], "See: stablequeue submit --help"),
        (["submit", "a", "--tier", "soon"], "See: stablequeue submit --help"),
    ],
)
def test_misuse_is_one_line_that_says_where_to_look(
    run: Run, arguments: list[str], said: str
) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.err.startswith("stablequeue: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_failures_are_json_too_when_asked_for(run: Run) -> None:
    ran = run("submit", "a", "--size", "3x3", "--json")
    assert ran.code == 2
    assert ran.json["error"]["code"] == "bad_request"
    assert ran.json["error"]["message"].startswith("width: ")


def test_what_nobody_expected_is_one_line_and_a_log(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        message = "two\nlines"
        raise RuntimeError(message)

    monkeypatch.setattr(launching, "_run", broken)
    ran = run("ls")
    log = home / "logs" / "stablequeue-cli.log"
    assert ran.code == 1
    assert ran.err == (
        f"stablequeue: unexpected RuntimeError: two lines; the traceback is in {log}\n"
    )
    assert "Traceback" in log.read_text()
    assert "Traceback" in run("ls", "-v").err


def test_ctrl_c_is_said_and_has_its_own_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "_run", stopped)
    assert run("ls").code == 130


def test_completion_scripts_name_the_commands(run: Run) -> None:
    ran = run("--install-completion", "--print", "--shell", "bash")
    assert ran.code == 0
    assert "submit" in ran.out
