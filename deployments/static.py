"""What is static: the deployments of `prefect.yaml`, the file Prefect's own CLI reads too.

`prefect --no-prompt deploy --all` works on the same file; here it is applied without prompts,
without changing schedules people edited, and with our run form.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from deployments.deploying import Plan
from stablequeue.errors import SettingsError
from stablequeue.servers import ANY

FILE = "prefect.yaml"
_KNOWN = {
    "name",
    "entrypoint",
    "description",
    "tags",
    "parameters",
    "schedules",
    "work_pool",
    "enforce_parameter_schema",
}
_SCHEDULES = ("cron", "interval", "rrule")


def static_plans(project: Path) -> list[Plan]:
    """Return the plans of the deployments in the project's `prefect.yaml`.

    Raises:
        SettingsError: The file is missing, damaged, or says something not understood here.
    """
    file = project / FILE
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        message = f"cannot read {file}: {error}"
        raise SettingsError(message) from error
    return [_plan(entry) for entry in data.get("deployments") or ()]


def _plan(entry: Mapping[str, Any]) -> Plan:
    name = str(entry.get("name"))
    if unknown := sorted(set(entry) - _KNOWN):
        message = f"{FILE}, deployment {name}: {unknown[0]!r} is not understood by StableQueue"
        raise SettingsError(message)
    pool = cast("Mapping[str, Any]", entry["work_pool"])
    return Plan(
        name=name,
        entrypoint=str(entry["entrypoint"]),
        description=str(entry.get("description") or "").strip(),
        pool=str(pool["name"]),
        queue=str(pool["work_queue_name"]),
        job_variables=dict(pool.get("job_variables") or {}),
        tags=tuple(entry.get("tags") or ()),
        parameters=dict(entry.get("parameters") or {}),
        server=ANY if name == ANY else "",
        schedules=tuple(_schedule(name, item) for item in entry.get("schedules") or ()),
    )


def _schedule(deployment: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in _SCHEDULES if kind in entry]
    if len(kinds) != 1 or "slug" not in entry:
        message = (
            f"{FILE}, deployment {deployment}: a schedule needs a slug and one of"
            f" {', '.join(_SCHEDULES)}"
        )
        raise SettingsError(message)
    schedule: dict[str, Any] = {kinds[0]: entry[kinds[0]]}
    for name in ("timezone", "anchor_date", "day_or"):
        if name in entry:
            schedule[name] = entry[name]
    return {
        "slug": entry["slug"],
        "active": entry.get("active", True),
        "parameters": entry.get("parameters") or {},
        "schedule": schedule,
    }
