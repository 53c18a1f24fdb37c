"""Whatever is typed or lies in a file: one line and an exit code, never a traceback."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stablequeue.cli import main
from stablequeue.cli.app import COMMANDS, GROUPS
from tests.cli.conftest import NOWHERE, Ran

# These go on until somebody stops them, or change the user's own shell.
ENDLESS = {"up", "watch", "ui"}


def examples(number: int) -> settings:
    """Let a property be tried so often, however loaded the machine is."""
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number, deadline=None, suppress_health_check=slow)


NAMES = [
    *([command.name] for commands in COMMANDS.values() for command in commands),
    *([name, command.name] for name, (_, _, commands) in GROUPS.items() for command in commands),
]
OPTIONS = [
    *("--json", "-v", "-q", "--all", "--front", "--force", "--dry-run", "--origin", "--update"),
    *("--waiting", "--finished", "--no-test", "--help"),
    *("--server", "--tag", "--state", "--limit", "--seed", "--size", "--steps", "--lora", "--set"),
    *("--override", "--workflow", "--from", "--init", "--mask", "--mode", "--expires", "--count"),
    *("--since", "--kind", "--before", "--url", "--type", "--setting", "--tier", "--output"),
]
VALUES = st.one_of(
    st.sampled_from(
        ["", "1", "-1", "1e999", "64x64", "nan", "a:1", "3.seed=1", "x={", "any", "gpu-a", "/", "."]
    ),
    st.text(max_size=40).filter(lambda text: "\x00" not in text),
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(home: Path, arguments: list[str], stdin: bytes = b"") -> Ran:
    """Run a command with its own standard streams."""
    streams = [io.StringIO(), io.StringIO()]
    environment = {"STABLEQUEUE_HOME": str(home), "STABLEQUEUE_PREFECT_API_URL": NOWHERE}
    text = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8", errors="surrogateescape")
    with (
        patch.dict(os.environ, environment),
        patch.object(sys, "stdin", text),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        code = main(arguments)
    return Ran(code, streams[0].getvalue(), streams[1].getvalue())


def check(ran: Ran) -> None:
    """Fail unless it went well or said in one line why not."""
    assert ran.code in {0, 1, 2}
    assert "Traceback" not in ran.out + ran.err
    assert "unexpected" not in ran.err
    if ran.code == 2:
        assert ran.err.splitlines()[-1].startswith("stablequeue: ")
    assert all(char.isprintable() or char in "\n\u200d\u200c\ufe0f" for char in ran.err)


commands = st.sampled_from([name for name in NAMES if not ENDLESS & set(name)])
options = st.lists(st.tuples(st.sampled_from(OPTIONS), st.lists(VALUES, max_size=1)), max_size=4)


@examples(150)
@pytest.mark.timeout(240)  # hundreds of commands; half a minute on an idle machine
@given(commands, options, st.lists(VALUES, max_size=2))
def test_any_arguments(
    home: Path, command: list[str], given_options: list[tuple[str, list[str]]], words: list[str]
) -> None:
    flat = [part for name, value in given_options for part in (name, *value)]
    check(run(home, [*command, *words, *flat]))


@examples(50)
@pytest.mark.timeout(240)
@given(st.binary(max_size=300), st.sampled_from(["--from", "--workflow", "--init", "--mask"]))
def test_any_file(home: Path, content: bytes, option: str) -> None:
    file = home / "hostile"
    file.write_bytes(content)
    check(run(home, ["submit", option, str(file)]))
    check(run(home, ["submit", "--from", "-"], stdin=content))
    check(run(home, ["servers", "import", str(file), "--dry-run"]))


@examples(50)
@pytest.mark.timeout(240)
@given(st.data())
def test_any_damaged_picture(home: Path, data: st.DataObject) -> None:
    info = PngInfo()
    info.add_text("parameters", "a fox\nSteps: 9, Sampler: Euler a, Seed: 77, Size: 64x64")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG", pnginfo=info)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = home / "damaged.png"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    check(run(home, ["submit", "--from", str(file)]))
    check(run(home, ["submit", "a", "--init", str(file)]))


def test_arguments_that_are_no_text(home: Path) -> None:
    """Bytes that are not UTF-8 arrive as surrogates."""
    for arguments in (["submit", "\udcff"], ["show", "\udcff"], ["images", "search", "\udcff"]):
        check(run(home, arguments))
