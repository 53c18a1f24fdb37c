"""Accepting: whatever is asked is a job on disk or one line, never anything else."""

import copy
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from stablequeue.catalogue import Catalogue, JobState
from stablequeue.errors import BadRequest
from stablequeue.ids import derived_seed, new_job_id
from stablequeue.pipeline.accept import accept, begin, job_of_run
from stablequeue.request import MIGRATIONS, GenerationRequest, parse_request
from stablequeue.settings import Settings
from tests.pipeline.conftest import SMALL

WHOLE: dict[str, Any] = {
    **SMALL,
    "negative_prompt": "fog",
    "mode": "txt2img",
    "server": "gpu-a",
    "loras": [{"name": "ink", "weight": 0.5, "text_weight": 1.0}],
    "text_encoders": ["clip_l"],
    "hires": {"scale": 2.0, "upscaler": "Latent"},
    "sections": {"forge": {"styles": ["a"], "payload": {"tiling": True}}},
    "alwayson_scripts": {"x": {"args": [1, None, {"deep": ["a"]}]}},
    "tags": ["night"],
    "expires_at": "2999-01-01T00:00:00Z",
    "output": {"format": "webp", "quality": 80},
    "seed": 7,
}
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**53,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 100_001,
    "\0",
    "\ud800",
    "a\r\nb",
    "../../etc/passwd",
    "~nobody-of-this-name/x.png",
    "sha256:" + "0" * 64,
    [],
    [None],
    {},
    {"a": {"b": []}},
    b"bytes",
    object(),
]


def damaged(rng: random.Random) -> dict[str, Any]:
    """Return a whole request with one to three places replaced, removed, renamed or added."""
    request = copy.deepcopy(WHOLE)
    for _ in range(rng.randint(1, 3)):
        place: Any = request
        while place:
            named = isinstance(place, dict)
            key: Any = rng.choice(list(place) if named else range(len(place)))
            below: Any = place[key]
            if isinstance(below, dict | list) and rng.random() < 0.6:
                place = cast("Any", below)
                continue
            match rng.randrange(4):
                case 1 if named:
                    del place[key]
                case 2 if named:
                    place[rng.choice(["", "x\ny", "steps ", "\0", "sections", 7])] = below
                case 3:
                    place[key] = [below]
                case _:
                    place[key] = rng.choice(ODD)
            break
    return request


def test_500_damaged_requests_are_jobs_or_one_line_each_that_names_the_field(
    settings: Settings, catalogue: Catalogue
) -> None:
    rng = random.Random(20_261_121)
    refused = 0
    for _ in range(500):
        request = damaged(rng)
        job_id = new_job_id()
        refusal = _refusal(request, settings, catalogue, job_id)
        if refusal is None:
            assert catalogue.request(job_id).job_id == job_id
            continue
        refused += 1
        text = str(refusal)
        assert text.isprintable(), (request, text)
        assert len(text) < 1000
        first, *_ = parts = refusal.field.split(".")
        known = first in {*GenerationRequest.model_fields, "request", "''"}
        assert known or any(said in text for said in ("no such field", "its name", "strings")), text
        assert not any(part[:1].isupper() for part in parts), "the name of one of our classes"
    assert refused > 300


def _refusal(
    request: dict[str, Any], settings: Settings, catalogue: Catalogue, job_id: str
) -> BadRequest | None:
    try:
        accept(request, settings=settings, catalogue=catalogue, job_id=job_id)
    except BadRequest as refused:
        return refused
    return None


@pytest.mark.parametrize("data", [None, [], "a lighthouse", 7, [("prompt", "x")]])
def test_what_is_no_request_at_all_is_refused(data: Any) -> None:
    with pytest.raises(BadRequest, match="request: fields with values are needed"):
        parse_request(data)


def test_a_request_of_an_older_release_is_migrated_when_it_is_read(
    settings: Settings, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(data: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": data.pop("text"), **data}

    monkeypatch.setitem(MIGRATIONS, 0, renamed)
    old = {"schema_version": 0, "text": "an old tower", "steps": 3}

    stored = begin(
        old,
        settings=settings,
        catalogue=catalogue,
        job_id=new_job_id(),
        server="gpu-a",
        flow_run_id="run",
    )

    assert (stored.request.prompt, stored.request.schema_version) == ("an old tower", 1)
    assert stored.data["schema_version"] == 1
    assert old["text"] == "an old tower", "what was given is left alone"


def test_an_expired_request_is_refused_at_once(settings: Settings, catalogue: Catalogue) -> None:
    over = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    with pytest.raises(BadRequest, match="expires_at: this time is already over"):
        accept({**SMALL, "expires_at": over}, settings=settings, catalogue=catalogue)


def test_what_a_job_was_made_from_counts_when_its_run_begins_again(
    settings: Settings, catalogue: Catalogue
) -> None:
    picture = settings.input_folders[0] / "start.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    job_id = new_job_id()

    def begun(**fields: Any) -> Any:
        return begin(
            {**SMALL, "mode": "img2img", "init_image": str(picture), **fields},
            settings=settings,
            catalogue=catalogue,
            job_id=job_id,
            server="gpu-a",
            flow_run_id="run",
        )

    first = begun()
    picture.unlink()
    again = begun(prompt="edited too late")

    assert again.request == first.request
    assert again.seed == first.seed == derived_seed(job_id)
    assert again.request.init_image.startswith("sha256:")
    assert again.request.server == "gpu-a"
    assert again.state is JobState.STARTED


def test_pictures_come_only_from_the_allowed_folders_unless_our_client_asks(
    settings: Settings, catalogue: Catalogue, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (64, 64)).save(outside)
    asked = {**SMALL, "mode": "img2img", "init_image": str(outside)}

    with pytest.raises(BadRequest, match="init_image: the picture lies outside"):
        begin(
            asked,
            settings=settings,
            catalogue=catalogue,
            job_id=new_job_id(),
            server="any",
            flow_run_id="run",
        )
    stored = accept(asked, settings=settings, catalogue=catalogue)
    kept = accept(stored.request, settings=settings, catalogue=catalogue)

    assert stored.request.init_image == kept.request.init_image
    with pytest.raises(BadRequest, match="init_image"):
        accept(
            {**asked, "init_image": f"sha256:{'0' * 64}"}, settings=settings, catalogue=catalogue
        )


def test_a_copied_run_is_a_new_job_and_a_repeated_one_is_not(
    settings: Settings, catalogue: Catalogue
) -> None:
    stored = accept(SMALL, settings=settings, catalogue=catalogue)
    assert job_of_run("", "run-1", catalogue) == "run-1"
    assert job_of_run(stored.job_id, "run-1", catalogue) == stored.job_id
    unknown = new_job_id()
    assert job_of_run(unknown, "run-1", catalogue) == unknown
    catalogue.mark_sent(stored.job_id, "run-1")
    assert job_of_run(stored.job_id, "run-1", catalogue) == stored.job_id
    assert job_of_run(stored.job_id, "run-2", catalogue) == "run-2"
