"""`models fetch` and `models downloads`: bringing files into the library."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from stablequeue.cli.common import DEFAULTS, Common, put
from stablequeue.cli.models import Type
from stablequeue.cli.models_screen import bars
from stablequeue.cli.screen import Screen
from stablequeue.cli.text import local_time, one_line
from stablequeue.sizes import size

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.client.model_downloads import Downloading
    from stablequeue.client.model_fetching import Fetched
    from stablequeue.models.downloads import Progress

_FILE = Group("Which file of a version", sort_key=2)
_WATCH_EVERY_S = 2.0
_TENTH = 10


def fetch(
    references: Annotated[
        list[str],
        Parameter(help="Civitai's or Hugging Face's address, civitai:MODEL@VERSION, a hash, ..."),
    ],
    /,
    *,
    type_: Type = "",
    fp: Annotated[str, Parameter(group=_FILE, help="fp16, fp32, bf16, fp8, ...")] = "",
    variant: Annotated[
        Literal["full", "pruned"] | None, Parameter(group=_FILE, help="Of a checkpoint.")
    ] = None,
    format_: Annotated[
        str, Parameter(name="--format", group=_FILE, help="SafeTensor, GGUF, ...")
    ] = "",
    file_type: Annotated[
        str, Parameter(group=_FILE, help="As Civitai names it: Model, 'Pruned Model', VAE, ...")
    ] = "",
    direct: Annotated[
        bool, Parameter(help="In this process, also where downloads are flow runs.")
    ] = False,
    wait: Annotated[
        bool, Parameter(help="Follow downloads that are flow runs to the end.")
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Fetch models into the library of this host; what is there already stays.

    While `stablequeue up` runs, each file becomes a flow run in the pool `downloads`, and this
    command returns; else it downloads right here. Ctrl-C is fine: the next time goes on.
    """
    pairs = (("fp", fp), ("size", variant or ""), ("format", format_), ("type", file_type))
    wish = tuple((name, value) for name, value in pairs if value)
    with common.client() as queue:
        found = fetch_shown(queue, references, common, kind=type_, wish=wish, direct=direct)
        if wait:
            return _follow(queue, found, common)
    common.emit([one.to_json() for one in found], lambda target: list_fetched(target, found))
    return 0


def downloads(
    *,
    all_: Annotated[bool, Parameter(name="--all", help="Also those that ended.")] = False,
    cancel: Annotated[
        list[str] | None, Parameter(help="Cancel this one, by its run's id; may be repeated.")
    ] = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    common: Common = DEFAULTS,
) -> int:
    """List the downloads of models, with how far they are; cancel some.

    To start no more of them: stablequeue pause downloads.
    """
    with common.client() as queue:
        if cancel:
            ids = [queue.models.cancel_download(one) for one in cancel]
            common.emit({"cancelled": ids}, "\n".join(f"cancelled: {one}" for one in ids))
            return 0
        found = queue.models.downloads(ended=all_, limit=max(1, limit))
    common.emit([one.to_json() for one in found], lambda target: _downloading(target, found))
    return 0


def fetch_shown(
    queue: "Client", references: Sequence[str], common: Common, **options: Any
) -> "list[Fetched]":
    """Fetch, and show on stderr how far it is; options are those of `Models.fetch`."""
    with _shown(common) as tell:
        found = queue.models.fetch(references, on_progress=tell, **options)
    for one in found:
        for warning in one.warnings:
            common.note(f"warning: {warning}")
    return found


@contextmanager
def _shown(common: Common) -> "Generator[Callable[[str, Progress], None]]":
    """Give what shows downloads on stderr: bars on a terminal, lines elsewhere."""
    screen = Screen(stderr=True)
    if common.quiet:
        yield lambda _name, _progress: None
    elif screen.terminal:
        with bars(screen) as bar:
            yield lambda name, now: bar(name, now.received, now.total, now.bytes_per_s)
    else:
        yield _Lines()


class _Lines:
    """Prints a line each tenth of the way."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def __call__(self, name: str, now: "Progress") -> None:
        tenth = _TENTH * now.received // now.total if now.total else 0
        if self._last.get(name) != tenth:
            self._last[name] = tenth
            whole = f"{10 * tenth} % of {size(now.total)}" if now.total else size(now.received)
            put(one_line(f"{name}: {whole}"), stderr=True)


def _follow(queue: "Client", found: "list[Fetched]", common: Common) -> int:
    """Wait until downloads that are flow runs have ended; 1 if one failed."""
    waiting = {one.run_id for one in found if one.run_id}
    told: dict[str, str] = {}
    failed = False
    while waiting:
        for one in queue.models.downloads(ended=True, limit=200):
            if one.run_id not in waiting:
                continue
            line = one_line(f"{one.name}: {one.state} {one.message}".rstrip())
            if told.get(one.run_id) != line:
                told[one.run_id] = line
                common.note(line)
            if one.ended:
                waiting.discard(one.run_id)
                failed = failed or one.progress != 1.0
        if waiting:
            time.sleep(_WATCH_EVERY_S)
    common.emit([one.to_json() for one in found], lambda target: list_fetched(target, found))
    return 1 if failed else 0


def list_fetched(target: Screen, found: "Sequence[Fetched]") -> None:
    """Print what became of each file."""
    for one in found:
        match one.state:
            case "asked":
                target.line(f"{one.path} is being fetched (run {one.run_id})")
            case "here":
                target.line(f"{one.path} is here already")
            case _:
                target.line(f"{one.path}  {size(one.size)}  {one.sha256[:10]}")
    if any(one.state == "asked" for one in found):
        target.line("How far: stablequeue models downloads")


def _downloading(target: Screen, found: "Sequence[Downloading]") -> None:
    if not found:
        target.line("Nothing is being fetched.")
        return
    now = datetime.now(UTC)
    target.table(
        ("RUN", "STATE", "DONE", "SIZE", "FROM", "ENDED", "NAME", "MESSAGE"),
        [
            [
                one.run_id,
                one.state,
                "" if one.progress is None else f"{one.progress:.0%}",
                size(one.size) if one.size else "",
                one.source,
                local_time(one.finished, now),
                one.name,
                one_line(one.message, 120),
            ]
            for one in found
        ],
        flexible=7,
    )
