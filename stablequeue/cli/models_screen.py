"""How models are shown to people."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stablequeue.cli.common import Common
from stablequeue.cli.screen import Screen
from stablequeue.cli.text import local_time, one_line, pairs
from stablequeue.sizes import size

if TYPE_CHECKING:
    from stablequeue.models.answers import Identified
    from stablequeue.models.records import ModelFile
    from stablequeue.models.sidecars import Sidecars
    from stablequeue.models.sources.civitai_answers import CivitaiModel

_MOST_VERSIONS = 12
_LONGEST_TEXT = 300


def list_files(target: Screen, found: "Sequence[ModelFile]") -> None:
    """Print files as a table."""
    if not found:
        target.line("No model fits. New files are found by: stablequeue models scan")
        return
    target.table(
        ("NAME", "TYPE", "BASE", "SIZE", "HASH", "USES", "TAGS", ""),
        [
            [
                one.name,
                (one.shown_kind or one.kind).value,
                one.base_model or (one.family.spoken if one.family else ""),
                size(one.size),
                one.autov2,
                str(one.uses) if one.uses else "",
                ", ".join(one.tags),
                "pinned" if one.pinned else one_line(one.problem, 80),
            ]
            for one in found
        ],
        flexible=0,
    )


def show_file(
    target: Screen, file: "ModelFile", told: "Sidecars", online: "CivitaiModel | None"
) -> None:
    """Print everything about a file."""
    now = datetime.now(UTC)
    used = datetime.fromtimestamp(file.last_used_ms / 1000, UTC) if file.last_used_ms else None
    shown = file.shown_kind
    target.pairs(
        pairs(
            {
                "name": file.name,
                "file": file.path,
                "problem": file.problem,
                "type": f"{file.kind.value}, but it shows a {shown.value}"
                if shown is not None and shown is not file.kind
                else file.kind.value,
                "architecture": _words(
                    file.family.spoken if file.family else "", file.variant, file.prediction
                ),
                "base model": told.base_model,
                "size": size(file.size),
                "SHA-256": file.sha256,
                "AutoV1": file.autov1,
                "AutoV2": file.autov2,
                "AutoV3": file.autov3,
                "CRC32": file.crc32,
                "BLAKE3": file.blake3,
                "alias": file.alias,
                "title": told.name,
                "activation": told.activation_text or ", ".join(told.trained_words),
                "negative": told.negative_text,
                "weight": told.preferred_weight or "",
                "notes": one_line(told.notes, _LONGEST_TEXT),
                "preview": told.preview,
                "tags": ", ".join(file.tags),
                "used": f"{file.uses} times, last {local_time(used, now)}" if file.uses else "",
                "pinned": "yes" if file.pinned else "",
                "unread": "\n".join(told.problems),
            }
        )
    )
    if online is not None:
        target.line()
        show_online(target, online, here=file.version_id or told.version_id)


def show_online(target: Screen, model: "CivitaiModel", *, here: int = 0) -> None:
    """Print what Civitai tells of a model."""
    stats = {str(name): value for name, value in model.stats.items() if _counts(value)}
    target.pairs(
        pairs(
            {
                "on Civitai": f"{model.name} (civitai:{model.id})",
                "creator": model.creator.get("username") or "",
                "mode": model.mode,
                "statistics": ", ".join(f"{value} {name}" for name, value in stats.items()),
                "licence": _licence(model),
            }
        )
    )
    rows = [
        [
            "here" if one.id == here else "",
            one.name,
            one.base_model,
            one.published_at[:10],
            "early access" if one.for_sale else "",
            f"civitai:{model.id}@{one.id}",
        ]
        for one in model.model_versions[:_MOST_VERSIONS]
    ]
    if rows:
        target.table(("", "VERSION", "BASE", "PUBLISHED", "", "REFERENCE"), rows, flexible=1)


def show_identified(target: Screen, found: "Identified") -> None:
    """Print all that can be told of one file."""
    hashes = found.identities
    architecture = found.architecture
    target.pairs(
        pairs(
            {
                "file": found.path,
                "problem": found.problem,
                "format": found.format.value,
                "type": architecture.kind.value if architecture.kind else "",
                "architecture": _words(
                    architecture.family.spoken if architecture.family else "",
                    architecture.variant,
                    architecture.prediction,
                ),
                "size": f"{hashes.size} bytes",
                "SHA-256": hashes.sha256,
                "AutoV1": hashes.autov1,
                "AutoV2": hashes.autov2,
                "AutoV3": hashes.autov3,
                "CRC32": hashes.crc32,
                "BLAKE3": hashes.blake3,
                "without header": hashes.tensors_sha256,
                "claims": f"{found.embedded}, which is wrong"
                if found.embedded_wrong
                else found.embedded,
                "tensors": found.tensors,
                "precision": ", ".join(f"{name} {count}" for name, count in found.dtypes.items()),
            }
        )
    )
    if found.metadata:
        target.line()
        target.pairs([(key, one_line(value, 200)) for key, value in found.metadata.items()])


@contextmanager
def hashing_shown(common: Common, path: Path | None = None) -> "Generator[Callable[[Any], None]]":
    """Give what shows on a terminal how far hashing is.

    Args:
        common: Of the command.
        path: The one file that is hashed: then bytes are told, else `ScanProgress`.
    """
    screen = Screen(stderr=True)
    if common.quiet or common.json or not screen.terminal:
        yield lambda _: None
        return
    whole = path.stat().st_size if path is not None and path.is_file() else 0
    with bars(screen) as tell:

        def told(progress: Any) -> None:
            if path is not None:
                tell(path.name, progress, whole, 0.0)
            else:
                about = f"{progress.files_done}/{progress.files} {progress.name}"
                tell("", progress.bytes_done, progress.bytes, 0.0, about=about)

        yield told


class Bars:
    """Progress bars, one a name, on a terminal."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int, speed: float, *, about: str = "") -> None:
        """Show how far one of them is: bytes, and bytes a second."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=total or None)
        del speed  # the bar knows it itself
        self._progress.update(
            self._tasks[name],
            description=one_line(about or name, 50),
            completed=done,
            total=total or None,
        )


@contextmanager
def bars(screen: Screen) -> "Generator[Bars]":
    """Give progress bars for the length of the block."""
    from rich.progress import (  # noqa: PLC0415  # 0.1 s
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen.console, transient=True) as progress:
        yield Bars(progress)


def _words(*words: str) -> str:
    return ", ".join(filter(None, words))


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _licence(model: "CivitaiModel") -> str:
    raw: Mapping[str, Any] = model.raw
    if "allowNoCredit" not in raw and "allowCommercialUse" not in raw:
        return ""
    commercial = ", ".join(model.allow_commercial_use)
    return _words(
        "no credit needed" if model.allow_no_credit else "credit the creator",
        f"commercial use: {commercial}" if commercial else "no commercial use",
        "" if model.allow_derivatives else "no derivatives",
    )
