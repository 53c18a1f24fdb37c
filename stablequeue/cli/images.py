"""`images search`, `images show`, `images verify`: stored pictures."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.cli.fields import past_moment
from stablequeue.cli.screen import Screen
from stablequeue.cli.text import local_time, one_line, pairs
from stablequeue.ids import short_id
from stablequeue.sizes import size

if TYPE_CHECKING:
    from stablequeue.catalogue import Asset
    from stablequeue.client import Client
    from stablequeue.views import Picture

_PAGE = 500


def search(
    text: Annotated[str, Parameter(help='Words that all occur; cat* and "black cat" work.')] = "",
    /,
    *,
    model: Annotated[str, Parameter(help="Made with this model (name or hash).")] = "",
    server: Annotated[str, Parameter(help="Made on this server.")] = "",
    kind: Annotated[
        Literal["image", "video", "text", "audio"] | None, Parameter(help="Only this kind.")
    ] = None,
    since: Annotated[str, Parameter(help="Not older: 2026-11-20, or 2d for two days.")] = "",
    until: Annotated[str, Parameter(help="Older than this.")] = "",
    tag: Annotated[str, Parameter(help="Only with this tag.")] = "",
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    before: Annotated[int | None, Parameter(help="Next page: the last id of this one.")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Search the stored pictures, newest first."""
    from stablequeue.engines.base import Kind  # noqa: PLC0415

    with common.client() as queue:
        assets = queue.session.catalogue.search(
            text,
            model=model,
            server=server,
            kind=Kind(kind) if kind else None,
            since=past_moment("--since", since) if since else None,
            until=past_moment("--until", until) if until else None,
            tag=tag,
            limit=max(1, limit),
            before=before,
        )
        found = queue.files.located(assets)
    common.emit([one.to_json() for one in found], lambda target: _list(target, found))
    return 0


def show(
    picture: Annotated[str, Parameter(help="Its id, or the first digits of its SHA-256.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Show everything about a picture."""
    with common.client() as queue:
        asset = queue.session.catalogue.asset(picture)
        found = queue.files.located([asset])[0]
    data = {
        **found.to_json(),
        "infotext": asset.infotext,
        "params": dict(asset.params),
        "engine_version": asset.engine_version,
        "gpu": asset.gpu,
        "original_sha256": asset.original_sha256,
        "tags": list(asset.tags),
    }
    common.emit(data, lambda target: _show(target, found))
    return 0


def verify(
    pictures: Annotated[
        list[str] | None, Parameter(help="Ids or SHA-256 digits; none: every picture.")
    ] = None,
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Check that stored files are there and unchanged.

    Reads every file and compares its SHA-256. The exit code is 1 when one is missing or damaged.
    """
    from stablequeue import storage  # noqa: PLC0415  # pydantic

    counts = dict.fromkeys((condition.value for condition in storage.Condition), 0)
    bad: list[dict[str, Any]] = []
    with common.client() as queue:
        for store, assets in _by_store(queue, pictures):
            for verdict in storage.verify(queue.files.store(store), assets):
                counts[verdict.condition.value] += 1
                if verdict.condition is storage.Condition.WHOLE:
                    continue
                [found] = queue.files.located([verdict.asset])
                bad.append({**found.to_json(), "condition": verdict.condition.value})
                common.say(f"{verdict.condition.value}: {found.path}")
    common.emit(
        {**counts, "bad": bad}, ", ".join(f"{count} {name}" for name, count in counts.items())
    )
    return 1 if bad else 0


def _by_store(queue: "Client", wanted: Sequence[str] | None) -> "Iterator[tuple[str, list[Asset]]]":
    """Yield the wanted assets, or all of them page by page, grouped by store."""
    catalogue = queue.session.catalogue
    if wanted:
        yield from _grouped([catalogue.asset(one) for one in wanted])
        return
    before: int | None = None
    while page := catalogue.search(limit=_PAGE, before=before):
        yield from _grouped(page)
        before = page[-1].id


def _grouped(assets: "Sequence[Asset]") -> "Iterator[tuple[str, list[Asset]]]":
    for store in sorted({asset.store for asset in assets}):
        yield store, [asset for asset in assets if asset.store == store]


def _list(target: Screen, found: "Sequence[Picture]") -> None:
    if not found:
        target.line("No picture fits.")
        return
    now = datetime.now(UTC)
    target.table(
        ("ID", "TIME", "JOB", "SERVER", "SEED", "PROMPT", "FILE"),
        [
            [
                str(one.asset.id),
                local_time(one.asset.created_at, now),
                short_id(one.asset.job_id),
                one.asset.server,
                str(one.asset.seed),
                one_line(one.asset.prompt, 200),
                _name(one.path),
            ]
            for one in found
        ],
        flexible=5,
    )


def _name(path: str) -> str:
    return path if "://" in path else Path(path).name


def _show(target: Screen, found: "Picture") -> None:
    asset = found.asset
    models = ", ".join(
        f"{name} ({digest[:10]})" if digest else name for name, digest in asset.models.items()
    )
    target.pairs(
        pairs(
            {
                "picture": asset.id,
                "file": found.path,
                "sha-256": asset.sha256,
                "original sha-256": asset.original_sha256
                if asset.original_sha256 != asset.sha256
                else "",
                "kind": f"{asset.kind} ({asset.mime}), {size(asset.size)}",
                "size": f"{asset.width}x{asset.height}" if asset.width else "",
                "made": local_time(asset.created_at, datetime.now(UTC)),
                "job": asset.job_id,
                "server": " ".join(filter(None, (asset.server, asset.engine_version, asset.gpu))),
                "seed": asset.seed,
                "models": models,
                "tags": ", ".join(asset.tags),
                "warnings": "\n".join(asset.warnings),
                "infotext": asset.infotext or asset.prompt,
            }
        ),
    )
