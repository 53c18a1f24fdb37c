"""`models`: the files of this host: what is there, and what a reference means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.cli.models_screen import hashing_shown, list_files, show_file, show_identified
from stablequeue.errors import DownloadError
from stablequeue.sizes import size

if TYPE_CHECKING:
    from stablequeue.cli.screen import Screen
    from stablequeue.models.records import ScanReport
    from stablequeue.models.sources.civitai_answers import CivitaiModel

Ref = Annotated[
    str, Parameter(help="A name, path, title with hash, hash, address, or Civitai's ids.")
]
Type = Annotated[str, Parameter(name="--type", help="checkpoint, lora, vae, embedding, ...")]


def scan(
    *,
    hashing: Annotated[
        bool, Parameter(negative="--no-hashing", help="Hash what is new; it takes reading it all.")
    ] = True,
    common: Common = DEFAULTS,
) -> int:
    """Bring the record of models up to date with the disk.

    What is unchanged costs next to nothing. Hashing may be stopped with Ctrl-C at any time; the
    next scan goes on.
    """
    with common.client() as queue:
        if not queue.models.roots:
            common.note(
                "note: no folder of models is known; name them in the settings models.folders or"
                " models.installations"
            )
        with hashing_shown(common) as progress:
            report = queue.models.scan(hashing=hashing, progress=progress)
        roots = queue.models.roots
    data = {
        "files": report.files,
        "folders": [
            {"path": str(root.path), "type": root.kind.value, "origin": root.origin}
            for root in roots
        ],
        "added": list(report.added),
        "changed": list(report.changed),
        "moved": [list(pair) for pair in report.moved],
        "missing": list(report.missing),
        "hashed": report.hashed,
        "problems": [{"path": path, "problem": why} for path, why in report.problems],
    }
    common.emit(data, lambda target: _scanned(target, report, common))
    return 0


def ls(
    text: Annotated[str, Parameter(help="Words in name, title or alias.")] = "",
    /,
    *,
    type_: Type = "",
    family: Annotated[
        str, Parameter(help="Family or base model: sdxl, flux1, Pony, 'SD 1.5', ...")
    ] = "",
    tag: Annotated[str, Parameter(help="Only with this tag.")] = "",
    missing: Annotated[bool, Parameter(help="Those that are gone, instead.")] = False,
    unused: Annotated[bool, Parameter(help="Only those no job ever used.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """List the models of this host."""
    with common.client() as queue:
        found = queue.models.files(
            text=text, kind=type_, family=family, tag=tag, missing=missing, unused=unused
        )
    common.emit([one.to_json() for one in found], lambda target: list_files(target, found))
    return 0


def show(
    reference: Ref,
    /,
    *,
    type_: Type = "",
    offline: Annotated[bool, Parameter(help="Do not ask Civitai.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Show everything about a model of this host, and its versions on Civitai."""
    with common.client() as queue:
        file = queue.models.file(reference, kind=type_)
        told = queue.models.sidecars(file)
        online: CivitaiModel | None = None
        if not offline:
            try:
                online = queue.models.online(file)
            except DownloadError as error:
                common.note(f"note: {error}")
    data: dict[str, Any] = {
        **file.to_json(),
        "sidecars": _plain_sidecars(told),
        "civitai": _brief(online),
    }
    common.emit(data, lambda target: show_file(target, file, told, online))
    return 0


def resolve(
    reference: Ref,
    /,
    *,
    type_: Type = "",
    explain: Annotated[bool, Parameter(help="Say what was tried and found.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Say which file of this host a reference means.

    The exit code is 1 when it means none, or not certainly one.
    """
    with common.client() as queue:
        found = queue.models.resolve(reference, kind=type_)
    answer = found.resolved

    def human(target: "Screen") -> None:
        if explain:
            for step in answer.steps:
                target.line(step)
        if answer.file is not None:
            target.line(str(answer.file.path))
            for one in answer.same:
                target.line(f"same bytes: {one.path}")

    common.emit(found.to_json(), human)
    if answer.file is None:
        hint = f" Did you mean: {', '.join(answer.suggestions)}?" if answer.suggestions else ""
        common.note(f"stablequeue: {found.reference} is no model of the library.{hint}")
        return 1
    return 0


def identify(
    file: Annotated[Path, Parameter(help="Any file, also outside the library.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Tell a file's hashes, architecture and embedded metadata."""
    path = file.expanduser().absolute()
    with common.client() as queue, hashing_shown(common, path) as progress:
        found = queue.models.identify(path, progress=progress)
    common.emit(found.to_json(), lambda target: show_identified(target, found))
    return 0


def duplicates(*, common: Common = DEFAULTS) -> int:
    """List files with the same bytes, the largest waste first."""
    with common.client() as queue:
        groups = queue.models.duplicates()
    data = [
        {
            "sha256": group[0].sha256,
            "size": group[0].size,
            "wasted": group[0].size * (len(group) - 1),
            "paths": [str(one.path) for one in group],
        }
        for group in groups
    ]

    def human(target: "Screen") -> None:
        for group in groups:
            target.line(f"{size(group[0].size)} x {len(group)}  {group[0].autov2}")
            for one in group:
                target.line(f"  {one.path}")
        wasted = sum(group[0].size * (len(group) - 1) for group in groups)
        target.line(f"{size(wasted)} could be freed." if groups else "No two files are the same.")

    common.emit(data, human)
    return 0


def _scanned(target: "Screen", report: "ScanReport", common: Common) -> None:
    told = {
        "new": len(report.added),
        "changed": len(report.changed),
        "moved": len(report.moved),
        "missing": len(report.missing),
        "hashed": report.hashed,
    }
    counts = ", ".join(f"{count} {name}" for name, count in told.items() if count)
    target.line(f"{report.files} models{f': {counts}' if counts else ', nothing new'}")
    for old, new in report.moved:
        target.line(f"moved: {old} -> {new}")
    for path, problem in report.problems:
        target.line(f"not usable: {path}: {problem}")
    if common.verbose:
        for path in report.added:
            target.line(f"new: {path}")
        for path in report.missing:
            target.line(f"missing: {path}")


def _plain_sidecars(told: Any) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415

    data = asdict(told)
    return {**data, "preview": str(told.preview) if told.preview else None}


def _brief(online: "CivitaiModel | None") -> dict[str, Any] | None:
    if online is None:
        return None
    from stablequeue.client.model_sources import brief  # noqa: PLC0415

    return brief(online)
