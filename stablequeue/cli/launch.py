"""Runs one command and turns whatever goes wrong into one line and an exit code."""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from cyclopts import App, CycloptsError, UnknownCommandError

from stablequeue.cli.app import GROUPS, build, names
from stablequeue.cli.common import put
from stablequeue.cli.quick import quick_httpx
from stablequeue.cli.text import one_line
from stablequeue.errors import BadRequest, QueueError, SettingsError
from stablequeue.hiding import without_secrets

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

_FLAGS = {"--json", "--verbose", "-v", "--quiet", "-q"}
_OTHER_FLAGS = {"--wait", "--update", "--test", "--no-test"}
"""Of the commands that read standard input."""

_WITH_VALUE = {"--home", "--setting"}
_LARGEST_LOG = 1_000_000


def launch(argv: Sequence[str] | None = None) -> int:
    """Run one command; see `stablequeue.cli.main`."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    tokens = lone_hyphens(globals_behind(list(sys.argv[1:] if argv is None else argv)))
    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    try:
        with quick_httpx():
            code = _run(build(tokens[:2]), tokens)
        sys.stdout.flush()
    except KeyboardInterrupt:
        put("stablequeue: stopped", stderr=True)
        code = INTERRUPTED
    except BrokenPipeError:
        # Somebody like `head` has read enough. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # noqa: BLE001  # the last resort: one line, a log, an exit code
        code = _failed(error, tokens, options)
    return code


def _failed(error: Exception, tokens: Sequence[str], options: Sequence[str]) -> int:
    """Say in one line what went wrong."""
    as_json = "--json" in options
    match error:
        case QueueError():
            _report(error.code, str(error), as_json=as_json)
            return MISUSED if isinstance(error, BadRequest | SettingsError) else FAILED
        case UnknownCommandError():
            _report("misuse", _unknown_command(tokens), as_json=as_json)
            return MISUSED
        case CycloptsError():
            _report("misuse", f"{_words(error)} See: {_help_for(tokens)}", as_json=as_json)
            return MISUSED
        case _:
            return _unexpected(error, options, as_json=as_json)


def globals_behind(tokens: list[str]) -> list[str]:
    """Move options that every command has from before the command to behind it.

    `stablequeue --home X servers --json ls` becomes `servers ls --home X --json`.
    """
    words: list[str] = []
    moved: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        name, _, value = token.partition("=")
        if token in _FLAGS or (name in _WITH_VALUE and value):
            moved.append(token)
        elif token in _WITH_VALUE:
            moved += tokens[at : at + 2]
            at += 1
        elif token in GROUPS and not words:
            words.append(token)
        else:
            break
        at += 1
    rest = [*words, *tokens[at:]]
    if not rest or not moved:
        return tokens
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *moved, *rest[end:]]


def lone_hyphens(tokens: list[str]) -> list[str]:
    """Write a lone `-` (standard input) so that Cyclopts does not take it for an option.

    `--from -` becomes `--from=-`, and `submit - --wait` becomes `submit --wait -- -`.
    """
    if "--" in tokens or "-" not in tokens:
        return tokens
    written: list[str] = []
    behind: list[str] = []
    for word in tokens:
        before = written[-1] if written else ""
        if word != "-":
            written.append(word)
        elif before.startswith("--") and "=" not in before and before not in _FLAGS | _OTHER_FLAGS:
            written[-1] = f"{before}=-"
        else:
            behind.append(word)
    return [*written, "--", *behind] if behind else written


def _run(app: App, tokens: list[str]) -> int:
    result = app(
        tokens,
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    return result if isinstance(result, int) else 0


def _report(code: str, message: str, *, as_json: bool) -> None:
    line = one_line(message)
    put(f"stablequeue: {line}", stderr=True)
    if as_json:
        put(json.dumps({"error": {"code": code, "message": line}}, indent=2))


def _words(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _unknown_command(tokens: Sequence[str]) -> str:
    """Say which command was likely meant; Cyclopts would import every command to do so."""
    group = tokens[0] if tokens[0] in GROUPS and len(tokens) > 1 else ""
    wrong = tokens[1] if group else tokens[0]
    like = get_close_matches(wrong, names(group), n=1)
    guess = f" Did you mean {like[0]!r}?" if like else ""
    place = f"stablequeue {group}".strip()
    return f"there is no command {wrong[:50]!r}.{guess} See: {place} --help"


def _help_for(tokens: Sequence[str]) -> str:
    words: list[str] = []
    if tokens and tokens[0] in GROUPS:
        words.append(tokens[0])
    if len(tokens) > len(words) and tokens[len(words)] in names("".join(words)):
        words.append(tokens[len(words)])
    return " ".join(["stablequeue", *words, "--help"])


def _unexpected(error: Exception, options: Sequence[str], *, as_json: bool) -> int:
    summary = one_line(without_secrets(f"{type(error).__name__}: {error}"))
    text = without_secrets("".join(traceback.format_exception(error)))
    if "-v" in options or "--verbose" in options:
        put(text, stderr=True)
    log = _write_log(text, options)
    where = f"the traceback is in {log}" if log else "run it with -v to see the traceback"
    _report("unexpected", f"unexpected {summary}; {where}", as_json=as_json)
    return FAILED


def _write_log(text: str, options: Sequence[str]) -> Path | None:
    home = os.environ.get("STABLEQUEUE_HOME", "")
    for at, option in enumerate(options):
        name, _, value = option.partition("=")
        if name == "--home":
            home = value or (options[at + 1] if at + 1 < len(options) else "")
    folders = [Path(home).expanduser() / "logs"] if home else [_default_logs()]
    for folder in [*folders, Path(tempfile.gettempdir())]:
        file = folder / "stablequeue-cli.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if file.exists() and file.stat().st_size > _LARGEST_LOG:
                file.unlink()
            with file.open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(f"{datetime.now(UTC).isoformat()}\n{text}\n")
        except (OSError, ValueError):
            continue
        return file
    return None


def _default_logs() -> Path:
    from platformdirs import user_data_path  # noqa: PLC0415  # only when something is broken

    return user_data_path("stablequeue", appauthor=False) / "logs"


def _never_fail_to_encode(stream: TextIO | Any) -> None:
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="backslashreplace")
