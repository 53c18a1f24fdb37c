"""A real ComfyUI, named by STABLEQUEUE_LIVE_COMFYUI (its URL): opt in with `-m live`.

It needs one checkpoint that makes pictures of 64 by 64 pixels; nothing of anybody else is touched.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from PIL import Image

from stablequeue.engines.base import EngineJob, Located, Ticket
from stablequeue.engines.comfyui import ComfyUI
from stablequeue.ids import new_job_id
from stablequeue.request import parse_request
from stablequeue.servers import ServerConfig

URL = os.environ.get("STABLEQUEUE_LIVE_COMFYUI", "")
pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not URL, reason="STABLEQUEUE_LIVE_COMFYUI is not set"),
]


@pytest.fixture
async def engine() -> AsyncGenerator[ComfyUI]:
    config = ServerConfig.model_validate({"alias": "live", "type": "comfyui", "url": URL})
    async with ComfyUI(config) as opened:
        yield opened


async def sent(engine: ComfyUI, steps: int) -> Ticket:
    checkpoint = (await engine.inventory()).checkpoints[0]
    request = parse_request(
        {"prompt": "x", "width": 64, "height": 64, "steps": steps, "checkpoint": checkpoint}
    )
    job = EngineJob(
        job_id=new_job_id(),
        index=0,
        attempt=1,
        seed=int.from_bytes(os.urandom(4), "big"),
        request=request,
        resolution=await engine.resolve(request),
    )
    return await engine.submit(engine.ticket(job), job)


async def test_a_picture_comes_home(engine: ComfyUI, tmp_path: Path) -> None:
    ticket = await sent(engine, 3)
    result = await engine.collect(ticket, tmp_path)
    with Image.open(result.assets[0].path) as image:
        image.load()
        assert image.size == (64, 64)
    assert result.effective["version"] == (await engine.probe()).version


async def test_only_our_own_job_is_cancelled(engine: ComfyUI, tmp_path: Path) -> None:
    unwanted = await sent(engine, 500)
    wanted = await sent(engine, 2)
    async with asyncio.timeout(120):
        while not await engine.cancel(unwanted):  # noqa: ASYNC110 - as the caller will do it
            await asyncio.sleep(0.3)
    assert await engine.locate(unwanted) in {Located.DONE, Located.GONE}
    assert (await engine.collect(wanted, tmp_path)).assets


async def test_what_was_made_is_found_again_by_its_name(engine: ComfyUI, tmp_path: Path) -> None:
    ticket = await sent(engine, 2)
    await engine.collect(ticket, tmp_path)
    forgotten = Ticket(engine=ticket.engine, remote_id=new_job_id(), data=ticket.data)
    assert await engine.locate(forgotten) is Located.DONE
