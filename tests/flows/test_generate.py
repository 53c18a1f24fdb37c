"""The flow `generate`, in its own process under a real worker, to the stored picture."""

from pathlib import Path

import pytest
from PIL import Image

from stablequeue.catalogue import Catalogue, JobState
from stablequeue.client import Client
from stablequeue.ids import derived_seed, run_name
from stablequeue.prefect_api import PrefectApi
from tests.flows.acting import slow
from tests.flows.conftest import CHECKPOINT, House

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]


@pytest.mark.parametrize("server", ["comfy", "forge"])
def test_a_job_ends_completed_with_its_picture_stored_and_shown(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue, server: str
) -> None:
    with slow([house.sandboxes[server]]):  # one that is over in a moment shows no progress
        submitted = queue.submit(
            prompt="a lighthouse",
            server=server,
            checkpoint=CHECKPOINT,
            steps=3,
            width=64,
            height=64,
            count=2,
            tags=["night"],
        )
        view = queue.wait(submitted.job_id, timeout=120)

    assert (view.state.value, view.phase) == ("completed", "Completed"), view.message
    run = api.read_run(view.flow_run_id)
    assert run.name == run_name("a lighthouse", "txt2img", server, submitted.job_id)
    seeds = [derived_seed(submitted.job_id) + index for index in range(2)]
    pictures = queue.pictures(submitted.job_id)
    assert [picture.asset.seed for picture in pictures] == seeds
    for picture in pictures:
        with Image.open(Path(picture.path)) as opened:
            assert opened.size == (64, 64)
    kinds = sorted(artifact.type for artifact in api.artifacts(run.id))
    assert kinds.count("image") == 2
    assert "progress" in kinds
    assert catalogue.request(submitted.job_id).state is JobState.COMPLETED


def test_a_model_the_server_lacks_fails_the_job_with_advice_and_stores_nothing(
    queue: Client,
) -> None:
    submitted = queue.submit(prompt="x", server="comfy", checkpoint="nowhere", steps=1)

    view = queue.wait(submitted.job_id, timeout=120)

    assert (view.state.value, view.code) == ("failed", "model_missing")
    assert "nowhere" in view.message
    assert "Traceback" not in view.message
    assert queue.pictures(submitted.job_id) == []
