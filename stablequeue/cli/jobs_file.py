"""`submit --file`: many jobs from a file with one JSON request a line."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from stablequeue.cli.common import Common, put
from stablequeue.cli.text import one_line
from stablequeue.errors import BadRequest
from stablequeue.secrets import private_folder, write_private

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.client.submitting import Submitted

_KEPT_S = 90 * 24 * 3600
_MOST_NOTES = 20

Expand = Callable[[str], Mapping[str, Any]]
"""Gives the fields that a picture, a file or an infotext tells."""


@dataclass
class Lines:
    """What is in a file.

    Attributes:
        content: Its bytes.
        requests: One for each line that can be read.
        numbers: Their lines, from 1.
        bad: Line and problem of each that cannot be accepted.
    """

    content: bytes
    requests: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    numbers: list[int] = field(default_factory=list[int])
    bad: list[tuple[int, BadRequest]] = field(default_factory=list[tuple[int, BadRequest]])


def read_lines(source: Path, expand: Expand, *, skip_bad: bool) -> Lines:
    """Read a file, or standard input for `-`; empty lines are none.

    Raises:
        BadRequest: It cannot be read, or, without `skip_bad`, the first line that is no request.
    """
    try:
        content = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadRequest("--file", f"cannot read {source}: {reason}") from error
    except UnicodeDecodeError as error:
        raise BadRequest("--file", f"{source} is not UTF-8 text") from error
    lines = Lines(content)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            lines.requests.append(_request(line, expand))
            lines.numbers.append(number)
        except BadRequest as error:
            if not skip_bad:
                raise named(number, error) from error
            lines.bad.append((number, error))
    if not lines.requests and not lines.bad:
        raise BadRequest("--file", "there is no request in it; one JSON object a line is needed")
    return lines


def named(number: int, error: BadRequest) -> BadRequest:
    """Return the problem of a line, with the line in it."""
    return BadRequest(f"line {number}: {error.field}", error.problem, error.allowed)


def submission_key(home: Path, content: bytes, *, resume: bool) -> tuple[str, bool]:
    """Return the key of a submission of a file, and whether it goes on with an earlier one.

    Each submission of a file without a key of its own makes new jobs under a key that is noted
    here before the first is accepted; with `resume` the one noted last goes on.
    """
    folder = private_folder(private_folder(home) / "submissions")
    note = folder / hashlib.sha256(content).hexdigest()
    if resume:
        with suppress(OSError):
            return note.read_text(encoding="utf-8").strip(), True
    _forget_old(folder)
    key = uuid4().hex
    write_private(note, key)
    return key, False


def submit_file(
    queue: "Client",
    lines: Lines,
    given: Mapping[str, Any],
    *,
    key: str,
    skip_bad: bool,
    common: Common,
) -> int:
    """Queue the jobs of a file, say what became of them; 0 if none was left out."""
    progress = _Progress(common)

    def on_bad(position: int, error: BadRequest) -> None:
        number = lines.numbers[position]
        if not skip_bad:
            raise named(number, error) from error
        lines.bad.append((number, error))

    try:
        jobs = queue.submit_many(
            lines.requests, key=key, on_bad=on_bad, on_progress=progress.tell, **given
        )
    except KeyboardInterrupt:
        progress.interrupted()
        raise
    finally:
        progress.end()
    lines.bad.sort(key=lambda one: one[0])
    left_out = {number for number, _ in lines.bad}
    numbers = [number for number in lines.numbers if number not in left_out]
    _remark(jobs, numbers, lines.bad, common)
    data = {
        "jobs": [
            {
                "line": number,
                "job_id": job.job_id,
                "new": job.new,
                "warnings": list(job.warnings),
                "note": job.note,
            }
            for number, job in zip(numbers, jobs, strict=True)
        ],
        "left_out": [
            {
                "line": number,
                "field": error.field,
                "problem": error.problem,
                "allowed": list(error.allowed),
            }
            for number, error in lines.bad
        ],
    }
    common.emit(data, "\n".join(job.job_id for job in jobs))
    return 1 if lines.bad else 0


def _request(line: str, expand: Expand) -> Mapping[str, Any]:
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise BadRequest("request", f"not JSON ({error})") from error
    except RecursionError as error:
        raise BadRequest("request", "too many levels inside each other") from error
    if not isinstance(data, dict):
        raise BadRequest("request", 'a JSON object is needed, as in {"prompt": "a lighthouse"}')
    request = cast("dict[str, Any]", data)
    if "from" not in request:
        return request
    source = request.pop("from")
    if not isinstance(source, str) or source == "-":
        raise BadRequest("from", "a picture, a text file or an infotext is needed")
    return {**expand(source), **request}


def _remark(
    jobs: "list[Submitted]",
    numbers: list[int],
    bad: list[tuple[int, BadRequest]],
    common: Common,
) -> None:
    """Say what the ids alone do not: left out, there already, likely not meant, not sent yet."""
    remarks = [f"left out: {named(number, error)}" for number, error in bad]
    remarks += [
        f"warning: line {number}: {text}"
        for number, job in zip(numbers, jobs, strict=True)
        for text in job.warnings
    ]
    for text in remarks[:_MOST_NOTES]:
        common.note(text)
    if len(remarks) > _MOST_NOTES:
        common.note(f"... and {len(remarks) - _MOST_NOTES} more; --json has them all")
    if before := sum(not job.new for job in jobs):
        common.note(f"note: {before} of {len(jobs)} jobs were accepted before")
    notes = [job.note for job in jobs if job.note]
    for text in dict.fromkeys(notes):
        common.note(f"note: {notes.count(text)} jobs: {text}")


def _forget_old(folder: Path) -> None:
    old = time.time() - _KEPT_S
    for note in folder.iterdir():
        with suppress(OSError):
            if note.stat().st_mtime < old:
                note.unlink()


class _Progress:
    """One line on a terminal, written over and over."""

    def __init__(self, common: Common) -> None:
        self._shown = sys.stderr.isatty() and not common.quiet
        self._common = common
        self._accepted = self._sent = 0

    def tell(self, accepted: int, sent: int) -> None:
        self._accepted, self._sent = accepted, sent
        if self._shown:
            text = one_line(f"{accepted} jobs accepted, {sent} of them in Prefect")
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown and self._accepted:
            put("", stderr=True)

    def interrupted(self) -> None:
        if self._accepted:
            self._common.note(
                f"note: {self._accepted} jobs are accepted and kept, {self._sent} are in Prefect;"
                " stablequeue up hands over the rest"
            )
