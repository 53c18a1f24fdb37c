"""Against a real Forge or AUTOMATIC1111: `STABLEQUEUE_LIVE_FORGE=http://... pytest -m live`."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from PIL import Image

from stablequeue.engines.base import Located
from stablequeue.engines.forge import Forge
from stablequeue.errors import Interrupted, ModelMissing
from tests.engines.forge.making import config, made, resolved, running, submitted

URL = os.environ.get("STABLEQUEUE_LIVE_FORGE", "")

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not URL, reason="STABLEQUEUE_LIVE_FORGE names no server"),
]


@pytest.fixture
async def engine() -> AsyncGenerator[Forge]:
    async with Forge(config(URL, read_timeout_s=60)) as opened:
        yield opened


async def test_every_checkpoint_makes_a_picture(engine: Forge, tmp_path: Path) -> None:
    for title in (await engine.inventory()).checkpoints:
        result = await made(engine, tmp_path, checkpoint=title, steps=2)
        assert Image.open(result.assets[0].path).size == (64, 64)


async def test_modes(engine: Forge, tmp_path: Path) -> None:
    first = tmp_path / "0000.png"
    await made(engine, tmp_path, checkpoint="", steps=2)
    inputs = {"init_image": first, "mask_image": first}
    for fields in (
        {"mode": "img2img", "init_image": "x"},
        {"mode": "inpaint", "init_image": "x", "mask_image": "x"},
        {"mode": "upscale", "init_image": "x"},
        {"hires": {"scale": 2}, "sampler": "DPM++ 2M Karras"},
        {"clip_skip": 2},
    ):
        spool = tmp_path / "next"
        spool.mkdir(exist_ok=True)
        assert (await made(engine, spool, checkpoint="", steps=2, inputs=inputs, **fields)).assets


async def test_an_unknown_checkpoint_is_refused(engine: Forge) -> None:
    with pytest.raises(ModelMissing):
        await resolved(engine, checkpoint="certainly-not-there")


async def test_cancelling(engine: Forge, tmp_path: Path) -> None:
    ticket = await submitted(engine, checkpoint="", steps=150)
    async with running(engine, ticket, tmp_path) as collecting:
        await asyncio.sleep(1)  # a real server takes its time to begin
        await engine.cancel(ticket)
        with pytest.raises(Interrupted):
            await collecting


async def test_another_session_recovers_the_result(engine: Forge, tmp_path: Path) -> None:
    job = await resolved(engine, checkpoint="", steps=20)
    ticket = engine.ticket(job)
    async with Forge(config(URL)) as first:
        await first.submit(ticket, job)
    result = await engine.collect(ticket, tmp_path)
    assert result.effective["recovered"]
    assert await engine.locate(ticket) is Located.DONE
