"""Five ways in are equal: client, Prefect's form, a schedule, `run_deployment`, an automation."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from stablequeue.catalogue import Catalogue, JobState, StoredRequest
from stablequeue.client import Client
from stablequeue.errors import BadRequest
from stablequeue.ids import derived_seed, run_name
from stablequeue.prefect_api import PrefectApi, Run
from stablequeue.project import project_dir
from tests.flows.acting import SMALL
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(240)]

SERVER = "comfy"
RUN_DEPLOYMENT = """
import json, sys
from prefect.deployments import run_deployment
for parameters in json.loads(sys.argv[2]):
    run = run_deployment(sys.argv[1], parameters=parameters, timeout=0, as_subflow=False)
    print(run.id)
"""


class Ways:
    """The ways in that are not our client; each returns the flow runs' ids, in order."""

    def __init__(self, house: House, api: PrefectApi) -> None:
        self.house, self.api = house, api
        self.deployment = api.deployment(f"generate/{SERVER}")
        self._left: list[str] = []

    def form(self, requests: list[dict[str, Any]]) -> list[str]:
        """Start custom runs as the form in Prefect's pages does."""
        path = f"deployments/{self.deployment.id}/create_flow_run"
        return [
            self.api.call("POST", path, {"parameters": {"request": request}})["id"]
            for request in requests
        ]

    def run_deployment(self, requests: list[dict[str, Any]]) -> list[str]:
        parameters = [{"request": request} for request in requests]
        done = subprocess.run(
            [
                *(sys.executable, "-c", RUN_DEPLOYMENT),
                *(f"generate/{SERVER}", json.dumps(parameters)),
            ],
            env=self.house.environment,
            cwd=project_dir(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split()

    def schedule(self, requests: list[dict[str, Any]]) -> list[str]:
        """Add schedules that are due in some seconds, then every year.

        Prefect looks for new schedules every 5 s, on a busy machine less often: one whose first
        time was over by then is added again.
        """
        path = f"deployments/{self.deployment.id}/schedules"
        missing = list(requests)
        for wait_s in (12, 25, 50):
            anchor = datetime.now(UTC) + timedelta(seconds=wait_s)
            body = [
                {
                    "active": True,
                    "parameters": {"request": request},
                    "schedule": {"interval": 365 * 86_400, "anchor_date": anchor.isoformat()},
                }
                for request in missing
            ]
            self._left += [f"{path}/{made['id']}" for made in self.api.call("POST", path, body)]
            while missing and datetime.now(UTC) < anchor:
                missing = [request for request in missing if not self._find(request)]
                time.sleep(0.5)
            if not missing:
                break
        return [self._run_with(request) for request in requests]

    def automation(self, requests: list[dict[str, Any]]) -> list[str]:
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
        for _ in range(6):  # Prefect hears of a new automation some time after it was made
            happened = {
                "occurred": datetime.now(UTC).isoformat(),
                "event": event,
                "resource": {"prefect.resource.id": "tests"},
                "id": str(uuid4()),
            }
            self.api.call("POST", "events", [happened])
            until = time.monotonic() + 10
            while not self._find(requests[0]) and time.monotonic() < until:
                time.sleep(0.5)
            if self._find(requests[0]):
                break
        return [self._run_with(request) for request in requests]

    def _run_with(self, request: dict[str, Any]) -> str:
        return wait_until(
            lambda: self._find(request), timeout_s=60, every_s=0.5, why=f"a run with {request}"
        )

    def _find(self, request: dict[str, Any]) -> str:
        body = {"deployments": {"id": {"any_": [self.deployment.id]}}, "limit": 200}
        for row in self.api.call("POST", "flow_runs/filter", body):
            if row["parameters"].get("request") == request:
                return str(row["id"])
        return ""

    def clean_up(self) -> None:
        for path in self._left:
            self.api.call("DELETE", path)
        # What a schedule has planned for the next years.
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


def _requests(way: str, outside: Path) -> list[dict[str, Any]]:
    """Return a good request and two bad ones; `source` tells whose they are."""
    good = {**SMALL, "prompt": "a fox, (red:1.2)", "tags": ["woods"], "source": way}
    return [
        good,
        {**good, "mode": "img2img"},
        {**good, "mode": "img2img", "init_image": str(outside)},
    ]


def test_five_ways_in_give_the_same_jobs_and_the_same_errors(  # noqa: PLR0917 - fixtures
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue, ways: Ways, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (64, 64)).save(outside)
    made = {
        name: getattr(ways, name)(_requests(name, outside))
        for name in ("form", "schedule", "automation", "run_deployment")
    }
    ours = queue.submit({**_requests("client", outside)[0], "server": SERVER}).job_id

    def ended(run_id: str) -> Run:
        def over() -> bool:
            return api.read_run(run_id).final

        wait_until(over, timeout_s=120, every_s=0.5, why="the run has ended")
        return api.read_run(run_id)

    runs = {way: [ended(run_id) for run_id in ids] for way, ids in made.items()}
    assert queue.wait(ours, timeout=60).state.value == "completed"
    runs["client"] = [api.read_run(queue.job(ours).flow_run_id)]

    seen: list[dict[str, Any]] = []
    for way, (run, *_) in runs.items():
        job_id = ours if way == "client" else run.id
        row = catalogue.request(job_id)
        assert (row.state, row.started_at is not None) == (JobState.COMPLETED, True), way
        assert row.source == way
        assert row.seed == derived_seed(job_id)
        assert run.name == run_name("a fox, (red:1.2)", "txt2img", SERVER, job_id)
        assert {f"job:{job_id}", f"server:{SERVER}", "tier:normal", "woods"} <= set(run.tags)
        [picture] = queue.pictures(job_id)
        assert picture.asset.seed == row.seed
        assert Path(picture.path).is_file()
        seen.append(_shape(row))
    assert all(shape == seen[0] for shape in seen), seen

    with pytest.raises(BadRequest) as refused:
        queue.submit({**_requests("client", outside)[1], "server": SERVER})
    for way, (_, *bad) in runs.items():
        if way == "client":
            continue
        assert [run.state_name for run in bad] == ["Failed", "Failed"], way
        assert bad[0].state_message == f"bad_request: {refused.value}"
        assert bad[1].state_message.startswith("bad_request: init_image: the picture lies outside")
        assert str(house.settings.input_folders[0]) in bad[1].state_message


def _shape(row: StoredRequest) -> dict[str, Any]:
    """Return what must be the same for every way."""
    data = {key: value for key, value in row.data.items() if key != "source"}
    return {"data": data, "server": row.server, "deployment": row.deployment}
