"""`models` that ask Civitai: searching, updates, what is kept of its answers."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.cli.models import Type
from stablequeue.cli.models_fetch import fetch_shown, list_fetched
from stablequeue.cli.screen import Screen
from stablequeue.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    from stablequeue.client.model_sources import FoundModels
    from stablequeue.models.sources.civitai_answers import CivitaiModel
    from stablequeue.models.updates import UpdateReport

_LAST_SEARCH = "models-search.json"


def search(
    text: Annotated[str, Parameter(help="Words; empty: any model.")] = "",
    /,
    *,
    type_: Annotated[
        list[str] | None,
        Parameter(name="--type", help="lora, checkpoint, ... or Civitai's word; may be repeated."),
    ] = None,
    base: Annotated[
        list[str] | None,
        Parameter(help="Base model as Civitai has it, e.g. 'SDXL 1.0'; may be repeated."),
    ] = None,
    tag: Annotated[str, Parameter(help="Only with this tag there.")] = "",
    user: Annotated[str, Parameter(help="Only of this creator.")] = "",
    sort: Annotated[
        str, Parameter(help="'Highest Rated', 'Most Downloaded', Newest, ...; '': Civitai's own.")
    ] = "",
    period: Annotated[
        Literal["AllTime", "Year", "Month", "Week", "Day"] | None,
        Parameter(help="What the sorting counts."),
    ] = None,
    nsfw: Annotated[bool, Parameter(help="Also what is not safe for work.")] = False,
    limit: Annotated[int, Parameter(help="Models a page, at most 100.")] = 20,
    next_: Annotated[
        bool, Parameter(name="--next", help="The next page of the last search.")
    ] = False,
    cursor: Annotated[str, Parameter(help="Of an earlier page of the very same search.")] = "",
    common: Common = DEFAULTS,
) -> int:
    """Search Civitai for models, a page at a time."""
    filters: dict[str, Any] = {
        "types": _types(type_ or []),
        "base_models": tuple(base or ()),
        "tag": tag,
        "username": user,
        "sort": sort,
        "period": period or "",
        "nsfw": nsfw,
        "limit": limit,
    }
    with common.client() as queue:
        kept = queue.settings.home / _LAST_SEARCH
        if next_:
            text, filters, cursor = _last(kept, text=text)
        found = queue.models.search(text, cursor=cursor, **filters)
        _keep(kept, text, filters, found.cursor)
    common.emit(found.to_json(), lambda target: _list(target, found))
    if found.cursor:
        common.note("There is more: stablequeue models search --next")
    return 0


def check_updates(
    references: Annotated[
        list[str] | None, Parameter(help="Models of this host; none: all.")
    ] = None,
    /,
    *,
    type_: Type = "",
    other_bases: Annotated[
        bool, Parameter(help="Also newer versions for another base model.")
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Say which models have newer versions on Civitai."""
    with common.client() as queue:
        report = queue.models.updates(references or (), kind=type_)
    shown = [one for one in report.updates if one.same_base or other_bases]
    data = {
        "updates": [one.to_json() for one in shown],
        "checked": report.checked,
        "unknown": [str(one.path) for one in report.unknown],
        "gone": [str(one.path) for one in report.gone],
        "problems": [{"model_id": ident, "problem": why} for ident, why in report.problems],
    }
    common.emit(data, lambda target: _updates(target, report, other_bases=other_bases))
    return 0


def update(
    references: Annotated[list[str], Parameter(help="Models of this host.")],
    /,
    *,
    direct: Annotated[
        bool, Parameter(help="In this process, also where downloads are flow runs.")
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Fetch the newest version of models from Civitai; the old file stays."""
    with common.client() as queue:
        report = queue.models.updates(references)
        newest: dict[int, str] = {}
        for one in report.updates:
            if one.same_base and not one.early_access:
                newest.setdefault(one.have, one.reference)
        for one in report.updates:
            if one.early_access and one.same_base:
                common.note(f"note: {one.model} {one.name} is in early access and left out")
        for file in report.unknown:
            common.note(f"note: Civitai does not know {file.name}")
        found = fetch_shown(queue, list(newest.values()), common, direct=direct) if newest else []
    common.emit(
        [one.to_json() for one in found],
        lambda target: list_fetched(target, found) if found else target.line("Nothing is newer."),
    )
    return 0


def cache(
    action: Annotated[Literal["clear"], Parameter(help="What to do.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Forget what Civitai answered: cache clear."""
    del action
    with common.client() as queue:
        count = queue.models.clear_cache()
    common.emit({"forgotten": count}, f"{count} answers forgotten")
    return 0


def _types(words: Sequence[str]) -> tuple[str, ...]:
    """Return Civitai's words: of a LoRA there are several kinds."""
    from stablequeue.models.sources.kinds import civitai_types  # noqa: PLC0415

    return tuple(dict.fromkeys(one for word in words for one in civitai_types(word)))


def _last(kept: "Path", *, text: str) -> tuple[str, dict[str, Any], str]:
    if text:
        raise BadRequest("--next", "it goes on with the last search; give no text")
    try:
        data: Any = json.loads(kept.read_text(encoding="utf-8"))
        text, filters, cursor = data["text"], data["filters"], data["cursor"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest("--next", "there was no search before") from error
    if not cursor:
        raise BadRequest("--next", "the last page was the last one")
    for name in ("types", "base_models"):
        filters[name] = tuple(filters.get(name) or ())
    return text, filters, cursor


def _keep(kept: "Path", text: str, filters: dict[str, Any], cursor: str) -> None:
    from stablequeue.storage.atomic import appearing  # noqa: PLC0415

    kept.parent.mkdir(parents=True, exist_ok=True)
    with appearing(kept) as temporary:
        data = {"text": text, "filters": filters, "cursor": cursor}
        temporary.write_text(json.dumps(data), encoding="utf-8")


def _list(target: Screen, found: "FoundModels") -> None:
    if not found.models:
        target.line("No model fits.")
        return
    target.table(
        ("MODEL", "TYPE", "BASE", "VERSION", "CREATOR", "DOWNLOADS", "REFERENCE"),
        [_row(one) for one in found.models],
        flexible=0,
    )


def _row(model: "CivitaiModel") -> list[str]:
    newest = model.version()
    downloads = model.stats.get("downloadCount")
    return [
        model.name,
        model.type,
        newest.base_model if newest else "",
        newest.name if newest else "",
        str(model.creator.get("username") or ""),
        str(downloads) if isinstance(downloads, int) else "",
        f"civitai:{model.id}@{newest.id}" if newest else f"civitai:{model.id}",
    ]


def _updates(target: Screen, report: "UpdateReport", *, other_bases: bool) -> None:
    shown = [one for one in report.updates if one.same_base or other_bases]
    if shown:
        target.table(
            ("MODEL", "NEW", "BASE", "PUBLISHED", "", "HERE", "REFERENCE"),
            [
                [
                    one.model,
                    one.name,
                    one.base_model,
                    one.published[:10],
                    "early access" if one.early_access else "",
                    one.file.name,
                    one.reference,
                ]
                for one in shown
            ],
            flexible=5,
        )
    others = len(report.updates) - len(shown)
    target.line(
        f"{report.checked} models asked for, {len(shown)} newer versions"
        + (f" ({others} more for other base models: --other-bases)" if others else "")
        + (f", {len(report.unknown)} files Civitai does not know" if report.unknown else "")
        + (f", {len(report.gone)} no longer there" if report.gone else "")
    )
    for ident, why in report.problems:
        target.line(f"civitai:{ident}: {why}")
