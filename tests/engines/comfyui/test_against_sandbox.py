"""The engine and the sandbox's ComfyUI half, over real sockets, with things going wrong."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stablequeue.engines.base import EngineJob, Located, Phase, RawResult, Ticket
from stablequeue.engines.comfyui import ComfyUI
from stablequeue.engines.comfyui.graph import Inputs
from stablequeue.engines.comfyui.submission import workflow_graph
from stablequeue.errors import (
    BadRequest,
    EngineUnreachable,
    Interrupted,
    JobFailed,
    JobRejected,
    ModelMissing,
    OutOfMemory,
    QueueError,
    ResultLost,
    Unsupported,
    WrongModel,
)
from stablequeue.request import GenerationRequest, parse_request
from stablequeue.sandbox import FaultKind, Sandbox, serve_sandbox
from stablequeue.servers import ServerConfig
from tests.engines.comfyui.jobs import JOB_ID, PICTURE
from tests.engines.comfyui.recordings import recorded
from tests.engines.comfyui.scripted import until
from tests.support.drawing import simple

WORKFLOW = recorded("txt2img")["request"]["prompt"]


@pytest.fixture(params=["0.3.64", "newer"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Sandbox]:
    newer = request.param == "newer"
    home = tmp_path / "server"
    home.mkdir()
    with serve_sandbox(home=home, newer_comfyui=newer, previews="auto") as served:
        yield served


@pytest.fixture
async def engine(sandbox: Sandbox) -> AsyncGenerator[ComfyUI]:
    config = ServerConfig.model_validate(
        {"alias": "sandbox", "type": "comfyui", "url": sandbox.url, "read_timeout_s": 5}
    )
    async with ComfyUI(config) as opened:
        yield opened


async def asked(engine: ComfyUI, **fields: Any) -> GenerationRequest:
    basics: dict[str, Any] = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 3}
    if fields.get("mode") not in {"workflow", "upscale"} and "unet" not in fields:
        basics["checkpoint"] = (await engine.inventory()).checkpoints[0]
    return parse_request({**basics, **fields})


async def made(
    engine: ComfyUI, *, attempt: int = 1, index: int = 0, inputs: Any = None, **fields: Any
) -> EngineJob:
    request = await asked(engine, **fields)
    return EngineJob(
        job_id=JOB_ID,
        index=index,
        attempt=attempt,
        seed=11 + index,
        request=request,
        resolution=await engine.resolve(request),
        inputs=inputs or {},
    )


async def sent(engine: ComfyUI, **fields: Any) -> Ticket:
    job = await made(engine, **fields)
    return await engine.submit(engine.ticket(job), job)


async def collected(engine: ComfyUI, ticket: Ticket, folder: Path) -> RawResult:
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    return await asyncio.wait_for(engine.collect(ticket, folder), 20)


async def test_it_is_probed_as_what_it_is(engine: ComfyUI, sandbox: Sandbox) -> None:
    info = await engine.probe()
    assert info.sandbox
    assert info.version
    assert ("jobs_api" in info.features) is sandbox.config.newer_comfyui


async def test_a_picture_is_made_followed_and_brought_home(engine: ComfyUI, tmp_path: Path) -> None:
    ticket = await sent(engine)
    phases: list[Phase] = []
    fractions: list[float] = []

    async def watch() -> None:
        async for progress in engine.observe(ticket):
            phases.append(progress.phase)
            fractions.append(progress.fraction or 0.0)

    watching = asyncio.create_task(watch())
    result = await collected(engine, ticket, tmp_path / "spool")
    await asyncio.wait_for(watching, 5)
    (asset,) = result.assets
    with Image.open(asset.path) as image:
        image.load()
        assert image.size == (64, 64)
        assert '"seed": 11' in image.info["prompt"]
        assert JOB_ID in image.info["stablequeue"]
    assert phases[-1] is Phase.DONE
    assert fractions == sorted(fractions)
    assert result.effective["seed"] == 11


async def test_every_mode_is_accepted(engine: ComfyUI, tmp_path: Path) -> None:
    picture, mask = tmp_path / "in.png", tmp_path / "mask.png"
    Image.new("RGB", (96, 80), "navy").save(picture)
    Image.new("L", (96, 80), 255).save(mask)
    both = {"init_image": PICTURE, "mask_image": PICTURE}
    files = {"init_image": picture, "mask_image": mask}
    inventory = await engine.inventory()
    flux = {
        "unet": next(name for name in inventory.unets if "flux" in name),
        "text_encoders": [
            next(name for name in inventory.text_encoders if kind in name.casefold())
            for kind in ("clip_l", "t5")
        ],
        "vae": inventory.vaes[0],
        "cfg_scale": 1,
    }
    modes: list[dict[str, Any]] = [
        {"hires": {"scale": 2}},
        {"hires": {"scale": 1.5, "upscaler": inventory.upscalers[0]}},
        {"loras": [{"name": inventory.loras[0], "weight": 0.5}], "clip_skip": 2},
        {"mode": "img2img", "init_image": PICTURE},
        *({"mode": "inpaint", **both, "inpaint": {"fill": f}} for f in ("fill", "original")),
        {"mode": "upscale", "init_image": PICTURE, "upscale": {"upscaler": inventory.upscalers[0]}},
        flux,
        {
            "mode": "workflow",
            "workflow": WORKFLOW,
            "overrides": {"4.ckpt_name": inventory.checkpoints[0]},
            "seed": 3,
        },
    ]
    for index, fields in enumerate(modes):
        ticket = await sent(engine, index=index, inputs=files, **fields)
        result = await collected(engine, ticket, tmp_path / f"spool-{index}")
        assert len(result.assets) == 1, fields


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"checkpoint": "nope.safetensors"}, ModelMissing),
        ({"sampler": "Restart"}, Unsupported),
        (
            {"mode": "workflow", "workflow": {"1": {"class_type": "Nope", "inputs": {}}}},
            Unsupported,
        ),
    ],
)
async def test_what_it_lacks_is_refused_before_anything_is_sent(
    engine: ComfyUI, fields: dict[str, Any], error: type[QueueError]
) -> None:
    with pytest.raises(error):
        await made(engine, **fields)


async def test_a_windows_servers_names_are_found_with_either_slash(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.config.models.separator = "\\"
    nested = next(n for n in (await engine.inventory()).checkpoints if "\\" in n)
    ticket = await sent(engine, checkpoint=nested.replace("\\", "/"))
    result = await collected(engine, ticket, tmp_path / "spool")
    assert result.effective["checkpoint"] == nested


@pytest.mark.parametrize("fault", [FaultKind.CLOSE, FaultKind.CUT, FaultKind.STATUS])
async def test_an_answer_lost_after_the_job_was_taken_is_settled_by_looking(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path, fault: FaultKind
) -> None:
    job = await made(engine)
    sandbox.faults.add(fault, "after POST /prompt", status=500)
    ticket = await engine.submit(engine.ticket(job), job)
    assert len((await collected(engine, ticket, tmp_path / "spool")).assets) == 1
    assert [place for _, place in sandbox.faults.struck] == ["after POST /prompt"]


async def test_a_job_that_never_arrived_is_said_to_be_so(engine: ComfyUI, sandbox: Sandbox) -> None:
    job = await made(engine)
    sandbox.faults.add(FaultKind.CLOSE, "POST /prompt")
    with pytest.raises(EngineUnreachable):
        await engine.submit(engine.ticket(job), job)
    assert await engine.locate(engine.ticket(job)) is Located.GONE


async def test_a_crash_of_the_server_is_found_out(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.config.step_seconds = 30
    ticket = await sent(engine)
    collecting = asyncio.create_task(collected(engine, ticket, tmp_path / "spool"))
    await until(lambda: sandbox.state)
    await asyncio.to_thread(sandbox.restart)
    with pytest.raises(ResultLost):
        await collecting


async def test_a_picture_made_just_before_a_crash_is_recovered(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path
) -> None:
    ticket = await sent(engine)
    first = await collected(engine, ticket, tmp_path / "first")
    await asyncio.to_thread(sandbox.restart)
    assert await engine.locate(ticket) is Located.DONE
    again = await collected(engine, ticket, tmp_path / "again")
    assert again.assets[0].path.read_bytes() == first.assets[0].path.read_bytes()
    assert again.effective["recovered"] is True


async def test_cut_sockets_do_not_keep_a_result(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(FaultKind.DROP_SOCKET, "step 2")
    ticket = await sent(engine)
    assert len((await collected(engine, ticket, tmp_path / "spool")).assets) == 1
    assert sandbox.faults.struck


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ((FaultKind.OUT_OF_MEMORY, "load"), OutOfMemory),
        ((FaultKind.ERROR, "step 2"), JobFailed),
        ((FaultKind.INTERRUPT, "step 2"), Interrupted),
        ((FaultKind.LOSE_RESULT, "save"), ResultLost),
    ],
)
async def test_what_goes_wrong_there_is_told_apart(
    engine: ComfyUI,
    sandbox: Sandbox,
    tmp_path: Path,
    fault: tuple[FaultKind, str],
    error: type[QueueError],
) -> None:
    sandbox.faults.add(*fault)
    ticket = await sent(engine)
    with pytest.raises(error) as failure:
        await collected(engine, ticket, tmp_path / "spool")
    assert type(failure.value) is error
    # The next job is not harmed.
    after = await sent(engine, attempt=2)
    assert len((await collected(engine, after, tmp_path / "after")).assets) == 1


async def test_cancelling_repeats_until_a_lost_interrupt_arrives(
    engine: ComfyUI, sandbox: Sandbox
) -> None:
    sandbox.config.step_seconds = 0.05
    sandbox.faults.add(FaultKind.LOSE_INTERRUPT)
    ticket = await sent(engine, steps=400)
    while await engine.locate(ticket) is Located.QUEUED:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while not await engine.cancel(ticket):  # noqa: ASYNC110 - as the caller will do it
            await asyncio.sleep(0.05)
    assert await engine.locate(ticket) is Located.DONE


async def test_of_two_only_the_cancelled_one_stops(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.config.step_seconds = 0.05
    first = await sent(engine, steps=10)
    second = await sent(engine, index=1, steps=900)
    assert await engine.cancel(second) is True
    assert await engine.locate(second) is Located.GONE
    assert len((await collected(engine, first, tmp_path / "spool")).assets) == 1


async def test_a_graph_that_does_not_validate_is_refused_by_name(engine: ComfyUI) -> None:
    job = await made(
        engine,
        mode="workflow",
        workflow=WORKFLOW,
        overrides={
            "4.ckpt_name": (await engine.inventory()).checkpoints[0],
            "3.steps": "many",
        },
    )
    with pytest.raises(JobRejected, match=r"node 3 \(KSampler\)"):
        await engine.submit(engine.ticket(job), job)


async def test_a_model_exchanged_without_a_word_is_noticed(
    engine: ComfyUI, sandbox: Sandbox, tmp_path: Path
) -> None:
    ticket = await sent(engine)
    other = Ticket(
        engine=ticket.engine,
        remote_id=ticket.remote_id,
        data={**ticket.data, "models": ["another.safetensors"]},
    )
    with pytest.raises(WrongModel):
        await collected(engine, other, tmp_path / "spool")
    assert sandbox.running


async def templates(engine: ComfyUI) -> dict[str, Any]:
    """Return a workflow as the editor saves it, with a checkpoint the server has."""
    return simple((await engine.inventory()).checkpoints[0])


async def test_a_workflow_as_the_editor_saves_it_makes_the_same_picture_as_in_api_format(
    engine: ComfyUI, tmp_path: Path
) -> None:
    template = await templates(engine)
    job = await made(engine, mode="workflow", workflow=template)
    plain = await made(engine, mode="workflow", workflow=job.resolution.graph, attempt=2)
    assert not plain.resolution.graph
    assert "graph" not in job.resolution.to_json()
    pictures: list[bytes] = []
    for number, one in enumerate((job, plain)):
        ticket = await engine.submit(engine.ticket(one), one)
        assert ticket.data["recoverable"]
        (asset,) = (await collected(engine, ticket, tmp_path / f"spool{number}")).assets
        with Image.open(asset.path) as image:
            pictures.append(image.tobytes())
            texts = dict(image.info)
        assert json.loads(texts["prompt"])["5"]["class_type"] == "KSampler"
        assert ("workflow" in texts) is (one is job)
        if one is job:
            assert json.loads(texts["workflow"]) == template
    assert pictures[0] == pictures[1]


async def test_overrides_seeds_and_count_work_on_what_the_editor_saves(
    engine: ComfyUI, tmp_path: Path
) -> None:
    overrides = {"Sampler.steps": 4, "2.text": "a bird", "7.filename_prefix": "mine"}
    asked = {"mode": "workflow", "workflow": await templates(engine), "overrides": overrides}
    prompts: list[Any] = []
    for index in range(2):
        job = await made(engine, index=index, attempt=index + 1, count=2, seed=11, **asked)
        ticket = await engine.submit(engine.ticket(job), job)
        (asset,) = (await collected(engine, ticket, tmp_path / f"spool{index}")).assets
        with Image.open(asset.path) as image:
            prompts.append(json.loads(image.info["prompt"]))
    assert [prompt["5"]["inputs"]["seed"] for prompt in prompts] == [11, 12]
    assert prompts[0]["5"]["inputs"]["steps"] == 4
    assert prompts[0]["2"]["inputs"]["text"] == "a bird"


async def test_an_override_may_name_what_only_the_editor_shows(engine: ComfyUI) -> None:
    template = await templates(engine)
    template["nodes"].append({"id": 30, "type": "PrimitiveNode", "widgets_values": [6, "fixed"]})
    template["nodes"][4]["inputs"].append(
        {"name": "steps", "type": "INT", "link": 99, "widget": {"name": "steps"}}
    )
    template["links"].append([99, 30, 0, 5, 4, "INT"])
    for overrides, steps in (({}, 6), ({"30.value": 8}, 8), ({"30.value": 8, "5.steps": 9}, 9)):
        job = await made(engine, mode="workflow", workflow=template, overrides=overrides)
        assert workflow_graph(job, Inputs(), "own")["5"]["inputs"]["steps"] == steps
    with pytest.raises(BadRequest, match="no such input"):
        await made(engine, mode="workflow", workflow=template, overrides={"5.stepz": 1})


async def test_what_a_server_lacks_of_a_template_is_told_as_of_any_workflow(
    engine: ComfyUI,
) -> None:
    with pytest.raises(ModelMissing) as missing:
        await made(engine, mode="workflow", workflow=simple("gone.safetensors"))
    assert missing.value.field == "workflow.1.ckpt_name"
    template = await templates(engine)
    template["nodes"][4]["type"] = "SamplerOfAPack"
    with pytest.raises(Unsupported, match="SamplerOfAPack"):
        await made(engine, mode="workflow", workflow=template)
    template = await templates(engine)
    template["nodes"][0]["mode"] = 2
    with pytest.raises(BadRequest, match=r"node \d .* needs its input clip"):
        await made(engine, mode="workflow", workflow=template)
