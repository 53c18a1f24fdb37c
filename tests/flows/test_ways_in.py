"""Five ways in are equal: client, Prefect's form, a schedule, `run_deployment`, an automation."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image

from stablequeue.catalogue import Catalogue, JobState
from stablequeue.client import Client
from stablequeue.errors import BadRequest
from stablequeue.ids import derived_seed, remote_key, run_name, short_id
from stablequeue.prefect_api import PrefectApi
from stablequeue.project import project_dir
from stablequeue.sandbox.serving import Sandbox
from tests.flows.acting import SMALL, WITHIN_S
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(600)]

SERVER = "comfy"
PROMPT = "a fox, (red:1.2)"
BREAKS = "the fan has stopped"
PREFECTS_OWN = "auto-scheduled"
"""Prefect's tag for runs of schedules."""
RUN_DEPLOYMENT = """
import json, sys
from prefect.deployments import run_deployment
for parameters in json.loads(sys.argv[2]):
    run = run_deployment(sys.argv[1], parameters=parameters, timeout=0, as_subflow=False)
    print(run.id)
"""

Requests = list[dict[str, Any]]
Begun = Callable[[], list[str]]
"""Waits for what a way has begun; returns the flow runs' ids, in the order of the requests."""


class Ways:
    """The ways in that are not our client. Each begins at once; see `Begun`."""

    def __init__(self, house: House, api: PrefectApi) -> None:
        self.house, self.api = house, api
        self.deployment = api.deployment(f"generate/{SERVER}")
        self._left: list[str] = []

    def form(self, requests: Requests) -> Begun:
        """Start custom runs as the form in Prefect's pages does."""
        path = f"deployments/{self.deployment.id}/create_flow_run"
        made = [
            str(self.api.call("POST", path, {"parameters": {"request": request}})["id"])
            for request in requests
        ]
        return lambda: made

    def run_deployment(self, requests: Requests) -> Begun:
        """Call Prefect's own function in a process that knows nothing of ours."""
        parameters = [{"request": request} for request in requests]
        running = subprocess.Popen(
            [
                *(sys.executable, "-c", RUN_DEPLOYMENT),
                *(f"generate/{SERVER}", json.dumps(parameters)),
            ],
            env=self.house.environment,
            cwd=project_dir(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def begun() -> list[str]:
            output, errors = running.communicate(timeout=WITHIN_S)
            assert running.returncode == 0, errors[-2000:]
            return output.split()

        return begun

    def schedule(self, requests: Requests) -> Begun:
        """Add cron schedules, half a day from now, and bring forward what Prefect plans.

        The runs are those the schedule makes; only the waiting for the hour is left out.
        """
        hour = (datetime.now(UTC) + timedelta(hours=12)).hour
        path = f"deployments/{self.deployment.id}/schedules"
        body = [
            {
                "active": True,
                "parameters": {"request": request},
                "schedule": {"cron": f"0 {hour} * * *", "timezone": "UTC"},
            }
            for request in requests
        ]
        self._left += [f"{path}/{made['id']}" for made in self.api.call("POST", path, body)]

        def begun() -> list[str]:
            ids = [self._run_with(request) for request in requests]
            for run_id in ids:
                planned = self.api.read_run(run_id)
                assert planned.raw["auto_scheduled"]
                assert self.api.reschedule(run_id, planned.state_name).accepted
            return ids

        return begun

    def automation(self, requests: Requests) -> Begun:
        """Make an automation that starts the deployment when an event happens; let it happen."""
        event = f"tests.{uuid4()}"
        automation = self.api.call(
            "POST",
            "automations/",
            {
                "name": event,
                "trigger": {
                    "type": "event",
                    "posture": "Reactive",
                    "expect": [event],
                    "threshold": 1,
                    "within": 0,
                },
                "actions": [
                    {
                        "type": "run-deployment",
                        "source": "selected",
                        "deployment_id": self.deployment.id,
                        "parameters": {"request": request},
                    }
                    for request in requests
                ],
            },
        )
        self._left.append(f"automations/{automation['id']}")
        happened = {"event": event, "resource": {"prefect.resource.id": "tests"}}
        last = 0.0

        def found() -> bool:
            nonlocal last
            if self._find(requests[0]):
                return True
            # Prefect hears of a new automation some time after it was made.
            if time.monotonic() - last > 10:
                last = time.monotonic()
                now = {"occurred": datetime.now(UTC).isoformat(), "id": str(uuid4())}
                self.api.call("POST", "events", [{**happened, **now}])
            return False

        def begun() -> list[str]:
            wait_until(found, timeout_s=WITHIN_S, every_s=0.3, why="the automation acts")
            return [self._run_with(request) for request in requests]

        found()
        return begun

    def _run_with(self, request: dict[str, Any]) -> str:
        return wait_until(
            lambda: self._find(request), timeout_s=WITHIN_S, every_s=0.3, why=f"a run of {request}"
        )

    def _find(self, request: dict[str, Any]) -> str:
        """Return the first run made with this request; empty while there is none."""
        body = {
            "deployments": {"id": {"any_": [self.deployment.id]}},
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": 200,
        }
        for row in self.api.call("POST", "flow_runs/filter", body):
            if row["parameters"].get("request") == request:
                return str(row["id"])
        return ""

    def clean_up(self) -> None:
        """Take away schedules and automations, and what they have planned."""
        for path in self._left:
            self.api.call("DELETE", path)
        body = {
            "deployments": {"id": {"any_": [self.deployment.id]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        for row in self.api.call("POST", "flow_runs/filter", body):
            self.api.delete_run(row["id"])


@pytest.fixture
def ways(house: House, api: PrefectApi) -> Iterator[Ways]:
    ways = Ways(house, api)
    yield ways
    ways.clean_up()


def _requests(way: str, outside: Path) -> Requests:
    """Return a good request and a bad one; `source` tells whose they are.

    A picture that lies outside is the form's only: one step serves all of these ways.
    """
    good = {**SMALL, "prompt": PROMPT, "tags": ["woods"], "source": way}
    bad = {**good, "mode": "img2img"}
    return [good, bad, *([{**bad, "init_image": str(outside)}] if way == "form" else [])]


def test_five_ways_in_give_the_same_jobs_and_the_same_errors(  # noqa: PLR0917 - fixtures
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue, ways: Ways, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (64, 64)).save(outside)
    comfy = house.sandboxes[SERVER]
    comfy.faults.add("error", "step 1", body=BREAKS, times=-1)
    begun = {
        name: getattr(ways, name)(_requests(name, outside))
        for name in ("schedule", "automation", "run_deployment", "form")
    }
    ours = queue.submit({**_requests("client", outside)[0], "server": SERVER}).job_id
    made: dict[str, list[str]] = {way: wait() for way, wait in begun.items()}
    jobs = {"client": ours, **{way: ids[0] for way, ids in made.items()}}

    first = {way: _first_try(queue, api, job_id) for way, job_id in jobs.items()}
    comfy.faults.clear()
    for job_id in jobs.values():
        assert queue.retry(job_id).done
    then = {way: _job(queue, catalogue, comfy, job_id) for way, job_id in jobs.items()}

    assert set(first) == {"client", "form", "schedule", "automation", "run_deployment"}
    for way, job_id in jobs.items():
        assert first[way] == first["client"], way
        assert then[way] == then["client"], way
        assert catalogue.request(job_id).source == way

    # Refused: our client at once, the others as their run begins, with the same words.
    with pytest.raises(BadRequest) as refused:
        queue.submit({**_requests("client", outside)[1], "server": SERVER})
    told = {way: [_refusal(api, run_id) for run_id in ids[1:]] for way, ids in made.items()}
    for way, (bad, *_) in told.items():
        assert bad == f"bad_request: {refused.value}", way
    outside_told = told["form"][1]
    assert outside_told.startswith("bad_request: init_image: the picture lies outside")
    assert str(house.settings.input_folders[0]) in outside_told


def _refusal(api: PrefectApi, run_id: str) -> str:
    """Wait until a run has ended without a job; return what is told of that."""
    wait_until(lambda: api.read_run(run_id).final, timeout_s=WITHIN_S, every_s=0.3)
    run = api.read_run(run_id)
    assert run.state_name == "Failed"
    return run.state_message


def _first_try(queue: Client, api: PrefectApi, job_id: str) -> dict[str, Any]:
    """Wait until a job has failed; return what is told of that, the same for every way."""
    view = queue.wait(job_id, timeout=WITHIN_S)
    run = api.read_run(view.flow_run_id)
    assert run.state_name == "Failed", view
    assert run.name == run_name(PROMPT, view.mode, SERVER, job_id)
    return {
        "message": run.state_message,
        "code": view.code,
        "name": run.name.replace(short_id(job_id), "ID"),
        "tags": sorted(tag.replace(job_id, "ID") for tag in run.tags if tag != PREFECTS_OWN),
    }


def _job(queue: Client, catalogue: Catalogue, comfy: Sandbox, job_id: str) -> dict[str, Any]:
    """Wait until a retried job has its picture; return what must be the same for every way."""
    view = queue.wait(job_id, timeout=WITHIN_S)
    assert view.state.value == "completed", view
    row = catalogue.request(job_id)
    assert (row.state, row.started_at is not None) == (JobState.COMPLETED, True)
    attempts = catalogue.attempts(job_id)
    sent = [_seed_sent(comfy, remote_key(job_id, 0, one.attempt)) for one in attempts]
    [picture] = queue.pictures(job_id)
    seed = derived_seed(job_id)
    assert [row.seed, picture.asset.seed, *sent] == [seed] * 4, "the seed changed"
    assert Path(picture.path).is_file()
    return {
        "request": {key: value for key, value in row.data.items() if key != "source"},
        "where": (row.server, row.deployment, view.server, view.pool, view.tier),
        "attempts": [(one.attempt, one.state, one.error, one.note) for one in attempts],
        "file": _without(picture.asset.key, seed, job_id),
        "infotext": _without(picture.asset.infotext, seed, job_id),
        "models": picture.asset.models,
        "tags": sorted(tag.replace(job_id, "ID") for tag in picture.asset.tags),
    }


def _seed_sent(comfy: Sandbox, prompt_id: object) -> int:
    history = httpx.get(f"{comfy.url}/history/{prompt_id}").json()
    graph: Mapping[str, Any] = history[str(prompt_id)]["prompt"][2]
    [seed] = [node["inputs"]["seed"] for node in graph.values() if "seed" in node["inputs"]]
    return seed


def _without(text: str, seed: int, job_id: str) -> str:
    """Return a text without what differs from job to job: seed, id, date and time."""
    text = text.replace(str(seed), "SEED").replace(short_id(job_id), "ID")
    return re.sub(r"\d{4}-\d\d-\d\d/\d{6}", "WHEN", text)
