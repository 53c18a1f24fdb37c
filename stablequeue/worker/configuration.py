"""What a pool or a deployment may set for its runs, and what a run is started with.

The first is a form on Prefect's pages; all of it is part of what every saved server's pool is made
from, so a change here makes pools anew (`deployments.unchanged`).
"""

from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import Flow, FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables
from pydantic import Field, PrivateAttr
from typing_extensions import override

from stablequeue.forms import drop_none
from stablequeue.project import project_dir

OUR_PULL_STEP: dict[str, Any] = {"stablequeue.project.enter": {}}
"""How deployments of our own project say where their flow is."""


class GpuServerJobConfiguration(ProcessJobConfiguration):
    """How a flow run is started, once everything is known."""

    _entrypoint: str = PrivateAttr(default="")
    _own_environment: dict[str, str] = PrivateAttr(default_factory=dict[str, str])
    _own_command: bool = PrivateAttr(default=False)

    @property
    def entrypoint(self) -> str:
        """Where the flow is in our project; empty: it comes from somewhere else."""
        return self._entrypoint

    @property
    def own_environment(self) -> dict[str, str]:
        """Variables the pool, the deployment or the run names, before Prefect adds its own."""
        return self._own_environment

    @property
    def own_command(self) -> bool:
        """Whether somebody named a command: then it is started as it is."""
        return self._own_command

    @override
    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        flow: Flow | None = None,
        work_pool: WorkPool | None = None,
        worker_name: str | None = None,
        worker_id: UUID | None = None,
    ) -> None:
        """Note what the pool or deployment names, and fill in the folder if they name none."""
        self._own_environment = {
            name: value for name, value in self.env.items() if value is not None
        }
        self._own_command = self.command is not None
        if (
            deployment is not None
            and deployment.pull_steps == [OUR_PULL_STEP]
            and self.working_dir is None
        ):
            self._entrypoint = deployment.entrypoint or ""
        if self.working_dir is None:
            self.working_dir = project_dir()
        super().prepare_for_flow_run(
            flow_run, deployment, flow, work_pool, worker_name, worker_id=worker_id
        )


class GpuServerVariables(ProcessVariables):
    """What a pool or deployment may set; Prefect's UI shows it as a form."""

    name: str | None = Field(
        default=None, title="Name", description="Name of the process. Empty: the run's name."
    )
    env: dict[str, str | None] = Field(
        default_factory=dict[str, str | None],
        title="Environment variables",
        description="Added to the worker's own. Nothing secret: everyone who sees the pool sees"
        " them.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str], title="Labels", description="For people only."
    )
    command: str | None = Field(
        default=None,
        title="Command",
        description="Leave empty: StableQueue's own way to run a flow.",
    )
    stream_output: bool = Field(
        default=True, title="Show output", description="Copy each run's output to the worker's."
    )
    working_dir: Path | None = Field(
        default=None,
        title="Folder",
        description="Leave empty: the folder StableQueue's flows are in.",
    )


def without_empty_tabs(template: dict[str, Any]) -> dict[str, Any]:
    """Return the template of new pools as a form without a tab for every empty field."""
    for field in template["variables"]["properties"].values():
        drop_none(field)
    return template
