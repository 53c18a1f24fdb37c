"""Warnings about models that do not fit together, in the answer to a submit."""

from pathlib import Path
from typing import Any

import pytest

from stablequeue.client import Client
from stablequeue.client.submitting import MODELS_FILE
from stablequeue.models.library import FILE_NAME
from stablequeue.settings import ModelSettings, Settings
from tests.models.making import of_shapes

SD1 = {"model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3]}
CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def image_model(path: Path, context: int) -> Path:
    """Write what looks like an image model of this width of its text's context."""
    return of_shapes(path, {**SD1, CROSS: [320, context]}, fill=path.name.encode())


def sdxl_lora(path: Path) -> Path:
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    shapes = {f"{stem}.lora_down.weight": [4, 2048], f"{stem}.lora_up.weight": [640, 4]}
    metadata = {"ss_base_model_version": "sdxl_base_v1-0"}
    return of_shapes(path, shapes, metadata, fill=path.name.encode())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("LORA_PATH", "CHECKPOINT_PATH"):
        monkeypatch.delenv(name, raising=False)
    folders = {"checkpoint": [tmp_path / "checkpoints"], "lora": [tmp_path / "loras"]}
    image_model(tmp_path / "checkpoints" / "old.safetensors", 768)
    image_model(tmp_path / "checkpoints" / "new.safetensors", 2048)
    sdxl_lora(tmp_path / "loras" / "style.safetensors")
    return Settings(
        home=tmp_path / "home",
        prefect_api_url="http://127.0.0.1:9/api",
        models=ModelSettings(folders=folders),
    )


def warned(settings: Settings, **fields: Any) -> tuple[str, ...]:
    with Client(settings) as queue:
        return queue.submit(fields).warnings


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a", "loras": [{"name": "style"}]},
        {"prompt": "a <lora:style:1>"},
        {
            "mode": "workflow",
            "workflow": {
                "1": {"class_type": "L", "inputs": {"ckpt_name": "old.safetensors"}},
                "2": {
                    "class_type": "L",
                    "inputs": {"lora_name": "style.safetensors", "strength_model": 1.0},
                },
            },
        },
    ],
)
def test_an_sdxl_lora_on_an_sd15_checkpoint_is_told(
    settings: Settings, fields: dict[str, Any]
) -> None:
    with Client(settings) as queue:
        queue.models.scan()
    plain = {} if "workflow" in fields else {"checkpoint": "old"}
    [warning] = warned(settings, **plain, **fields)
    assert "style.safetensors is made for SDXL" in warning
    if plain:
        assert warned(settings, **{**fields, "checkpoint": "new"}) == ()
        digits = next(one.sha256 for one in files(settings) if one.name == "old.safetensors")
        assert len(warned(settings, **{**fields, "checkpoint": f"sha256:{digits}"})) == 1


def files(settings: Settings) -> Any:
    with Client(settings) as queue:
        return queue.models.files()


def test_many_requests_are_warned_about_each(settings: Settings) -> None:
    with Client(settings) as queue:
        queue.models.scan()
        requests = [
            {"prompt": "a", "checkpoint": name, "loras": [{"name": "style"}]}
            for name in ("old", "new", "unknown")
        ]
        assert [len(one.warnings) for one in queue.submit_many(requests)] == [1, 0, 0]


def test_without_a_record_nothing_is_opened_and_none_is_made(settings: Settings) -> None:
    assert warned(settings, prompt="a", checkpoint="old", loras=[{"name": "style"}]) == ()
    assert not (settings.home / FILE_NAME).exists()
    assert MODELS_FILE == FILE_NAME


def test_a_damaged_record_keeps_nobody_from_submitting(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / FILE_NAME).write_bytes(b"no database" * 100)
    assert warned(settings, prompt="a", checkpoint="old") == ()
