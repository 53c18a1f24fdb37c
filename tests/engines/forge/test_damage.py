"""Whatever a server answers, the engine says one line or goes on; no traceback, no hang."""

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from stablequeue.engines.forge import Forge, answers, submission
from stablequeue.errors import QueueError
from tests.engines.forge.making import config, engine_job, request
from tests.engines.forge.recordings import job as recorded
from tests.engines.forge.recordings import listed
from tests.engines.forge.scripted import Scripted, serve

LIMIT_S = 20.0
PLACES = (
    "GET /app_id",
    "GET /sdapi/v1/sd-models",
    "GET /sdapi/v1/sd-modules",
    "GET /sdapi/v1/options",
    "GET /sdapi/v1/samplers",
    "GET /sdapi/v1/schedulers",
    "GET /sdapi/v1/loras",
    "GET /sdapi/v1/scripts",
    "GET /sdapi/v1/latent-upscale-modes",
    "GET /sdapi/v1/upscalers",
    "GET /sdapi/v1/memory",
    "GET /sdapi/v1/progress",
    "GET /internal/pending-tasks",
    "POST /internal/progress",
    "POST /sdapi/v1/options",
    "POST /sdapi/v1/txt2img",
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.just("../../etc/passwd")
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def usual(place: str) -> Any:
    """Return what a healthy server answers there, to be damaged."""
    method, path = place.split(" ")
    if path == "/sdapi/v1/txt2img":
        return recorded("txt2img_batch2_iter2_save")["response"]
    if method == "POST":
        return {"active": False, "queued": False, "completed": True, "id_live_preview": -1}
    return listed(path)


@st.composite
def damaged(draw: Any, place: str) -> bytes:
    """Draw an answer with something wrong: cut off, a value replaced, not JSON at all."""
    whole = usual(place)
    match draw(st.integers(0, 3)):
        case 0:
            return draw(st.binary(max_size=60))
        case 1:
            raw = json.dumps(whole).encode()
            return raw[: draw(st.integers(0, len(raw)))]
        case 2:
            return json.dumps(draw(JSON)).encode()
        case _:
            return json.dumps(_with_one_other(draw, whole)).encode()


def _with_one_other(draw: Any, value: Any) -> Any:
    """Return a copy with one value, somewhere inside, replaced."""
    deeper = draw(st.booleans())
    if isinstance(value, dict) and value:
        entries = cast("dict[str, Any]", value)
        key = draw(st.sampled_from(sorted(entries)))
        return {**entries, key: _with_one_other(draw, entries[key]) if deeper else draw(JSON)}
    if isinstance(value, list) and value:
        items = cast("list[Any]", value)
        place = draw(st.integers(0, len(items) - 1))
        other = _with_one_other(draw, items[place]) if deeper else draw(JSON)
        return [*items[:place], other, *items[place + 1 :]]
    return draw(JSON)


async def everything(engine: Forge, spool: Path) -> None:
    """Do what a job does, from the first question to the result."""
    await engine.probe()
    wanted = request(hires={"scale": 2}, loras=[{"name": "tiny-lora"}])
    wanted = wanted.model_copy(update={"alwayson_scripts": {"ControlNet": {"args": []}}})
    job = engine_job(wanted, await engine.resolve(wanted))
    ticket = await engine.submit(engine.ticket(job), job)
    try:
        await engine.collect(ticket, spool)
    finally:
        await engine.locate(ticket)
        await engine.cancel(ticket)


@pytest.mark.repeats
@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_answer_is_one_clear_error_or_does_not_matter(
    place: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("fast")
    monkeypatch.setattr(submission, "REFUSED_WITHIN_S", 0.005)

    async def check(server: Scripted, body: bytes, status: int) -> None:
        server.restart()
        server.script(place, *[Response(body, status, media_type="application/json")] * 3)
        with tempfile.TemporaryDirectory() as folder:
            try:
                async with asyncio.timeout(LIMIT_S), Forge(config(server)) as engine:
                    await everything(engine, Path(folder))
            except QueueError as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017 - either is fine
            left = await asyncio.to_thread(lambda: [p.name for p in Path(folder).iterdir()])
        assert not [name for name in left if name.endswith(".part")]
        server.scripts.clear()

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(serve(Scripted(automatic=True))))

        @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
        @given(damaged(place), st.sampled_from([200, 200, 200, 500]))
        def check_all(body: bytes, status: int) -> None:
            runner.run(check(server, body, status))

        try:
            check_all()
        finally:
            runner.run(stack.aclose())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_answer_are_refused_in_one_line(body: bytes) -> None:
    shapes: list[Any] = [answers.GENERATED, answers.INFO, answers.TASK, answers.CHECKPOINTS]
    for shape in shapes:
        try:
            answers.read(shape, body)
        except answers.Nonsense as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - either is fine


def test_answers_nested_without_end_are_refused() -> None:
    for body in ("[" * 100_000, '{"a":' * 100_000, '"' + "x" * 10):
        with pytest.raises(answers.Nonsense):
            answers.read(answers.CHECKPOINTS, body)
