"""`prefect.yaml`: every deployment in it can be loaded, and what is odd is refused."""

import sys
from pathlib import Path

import pytest
from prefect.flows import load_flow_from_entrypoint

from deployments.deploying import Plan
from deployments.static import static_plans
from stablequeue.errors import SettingsError
from stablequeue.project import project_dir

PLANS = static_plans(project_dir())


@pytest.mark.parametrize("plan", PLANS, ids=[plan.name for plan in PLANS])
def test_every_deployment_has_a_flow_that_really_loads(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading for a deploy falls back to a placeholder, and a broken flow dies only at run time."""
    monkeypatch.chdir(project_dir())
    flow = load_flow_from_entrypoint(plan.entrypoint, use_placeholder_flow=False)
    assert flow.isasync


def test_the_pool_any_has_its_deployment() -> None:
    (plan,) = [plan for plan in PLANS if plan.name == "any"]
    assert (plan.pool, plan.queue, plan.fixed) == ("any", "normal", False)


@pytest.mark.parametrize("folder", ["flows", "tasks", "blocks"])
def test_no_file_name_hides_a_module_of_the_standard_library(folder: str) -> None:
    """Prefect leaves `flows/` first on sys.path after loading a flow from it."""
    stems = {file.stem for file in (project_dir() / folder).glob("*.py")}
    assert not stems & set(sys.stdlib_module_names)
    assert not stems & {"prefect", "stablequeue", "httpx", "pydantic"}


def write(folder: Path, text: str) -> Path:
    (folder / "prefect.yaml").write_text(text)
    return folder


MINIMAL = """
deployments:
  - name: x
    entrypoint: flows/x.py:x
    work_pool: {{name: any, work_queue_name: bulk, job_variables: {{env: {{A: b}}}}}}
    {more}
"""


def test_schedules_become_what_the_api_takes(tmp_path: Path) -> None:
    more = (
        "schedules: [{slug: a, cron: '0 7 * * *', timezone: Europe/Berlin, parameters: {p: 1}},"
        " {slug: b, interval: 60, active: false}]"
    )
    (plan,) = static_plans(write(tmp_path, MINIMAL.format(more=more)))
    assert plan.job_variables == {"env": {"A": "b"}}
    assert plan.schedules == (
        {
            "slug": "a",
            "active": True,
            "parameters": {"p": 1},
            "schedule": {"cron": "0 7 * * *", "timezone": "Europe/Berlin"},
        },
        {"slug": "b", "active": False, "parameters": {}, "schedule": {"interval": 60}},
    )


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("concurrency_limit: 3", "'concurrency_limit' is not understood"),
        ("schedules: [{cron: '* * * * *'}]", "needs a slug"),
        ("schedules: [{slug: a}]", "one of cron, interval, rrule"),
        ("schedules: [{slug: a, cron: '* * * * *', interval: 5}]", "one of cron"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, more: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        static_plans(write(tmp_path, MINIMAL.format(more=more)))


@pytest.mark.parametrize("text", [None, "deployments: [", "\x00"])
def test_a_missing_or_damaged_file_is_explained(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        write(tmp_path, text)
    with pytest.raises(SettingsError, match="cannot read"):
        static_plans(tmp_path)
