"""Settings of the server: what is overridden, and that it does not leak."""

from pathlib import Path

import pytest

from stablequeue.engines.forge import Forge, options
from tests.engines.forge.making import OTHER, config, inside, made, resolved, submitted
from tests.engines.forge.recordings import job
from tests.engines.forge.scripted import Scripted, raised, serve

KEYS = ("CLIP_stop_at_last_layers", "samples_format", "samples_filename_pattern", "save_to_dirs")


def test_the_recorded_server_leaks_overrides_of_keys_it_lacks() -> None:
    # What all of this is for: CLIP skip 2 and JPEG stayed for everybody.
    assert job("override_clipskip")["options_after"]["CLIP_stop_at_last_layers"] == 2
    assert job("override_jpg")["options_after"]["samples_format"] == "jpg"


async def test_nothing_leaks_into_other_people_s_jobs(automatic: Scripted, tmp_path: Path) -> None:
    before = automatic.options()
    assert not automatic.memory  # a fresh installation
    async with Forge(config(automatic)) as engine:
        await made(engine, tmp_path, clip_skip=2, checkpoint=OTHER)
    assert automatic.options() == before


async def test_a_leaked_module_list_needs_another_one_before_it(
    automatic: Scripted, tmp_path: Path
) -> None:
    automatic.lists["/sdapi/v1/sd-modules"] = [
        {"model_name": "ae.safetensors", "filename": "/models/VAE/ae.safetensors"}
    ]
    async with Forge(config(automatic)) as engine:
        await made(engine, tmp_path, vae="ae")
    assert automatic.options()["forge_additional_modules"] == []
    assert automatic.posted()[0]["override_settings"]["forge_additional_modules"] == [
        "ae.safetensors"
    ]


async def test_settings_are_stored_once_a_boot_for_all_sessions(
    automatic: Scripted, tmp_path: Path
) -> None:
    for _ in range(3):
        async with Forge(config(automatic)) as engine:
            await made(engine, tmp_path)
    assert automatic.count("POST /sdapi/v1/options") == 1
    automatic.restart()
    async with Forge(config(automatic)) as engine:
        await made(engine, tmp_path)
    assert automatic.count("POST /sdapi/v1/options") == 2


async def test_numbers_are_stored_whole_because_some_are_used_as_an_index(
    automatic: Scripted, tmp_path: Path
) -> None:
    async with Forge(config(automatic)) as engine:
        await made(engine, tmp_path)
    stored = automatic.memory["CLIP_stop_at_last_layers"]
    assert (stored, type(stored)) == (1, int)


async def test_a_further_key_of_a_request_is_protected_too(
    automatic: Scripted, tmp_path: Path
) -> None:
    before = automatic.options()
    own = {"forge": {"override_settings": {"eta_ancestral": 0.5}}}
    async with Forge(config(automatic)) as engine:
        await made(engine, tmp_path)
        await made(engine, tmp_path, sections=own)
    assert automatic.options() == before
    assert automatic.posted()[1]["override_settings"]["eta_ancestral"] == 0.5


async def test_a_selected_checkpoint_whose_file_is_gone_does_not_spoil_it(
    automatic: Scripted, tmp_path: Path
) -> None:
    automatic.defaults["sd_model_checkpoint"] = "deleted.safetensors"
    async with Forge(config(automatic)) as engine:
        await made(engine, tmp_path)
    assert all(key in automatic.memory for key in KEYS)


async def test_unreadable_settings_leave_file_names_alone(
    automatic: Scripted, tmp_path: Path
) -> None:
    automatic.always("GET /sdapi/v1/options", raised("ResponseValidationError", "1 error"))
    async with Forge(config(automatic)) as engine:
        job = await resolved(engine, clip_skip=2)
        ticket = await engine.submit(engine.ticket(job), job)
        await engine.collect(ticket, tmp_path)
    assert automatic.count("POST /sdapi/v1/options") == 0
    sent = automatic.posted()[0]["override_settings"]
    assert not {"samples_filename_pattern", "save_to_dirs"} & sent.keys()
    assert sent["CLIP_stop_at_last_layers"] == 2
    assert sent["samples_format"] == "png"
    assert ticket.data["file"] == ""


async def test_settings_that_cannot_be_stored_leave_file_names_alone(
    automatic: Scripted, tmp_path: Path
) -> None:
    frozen = raised("AssertionError", "changing settings is disabled")
    automatic.always("POST /sdapi/v1/options", frozen)
    async with Forge(config(automatic)) as engine:
        ticket = await submitted(engine)
        await engine.collect(ticket, tmp_path)
    assert ticket.data["file"] == ""  # nobody may look for it there
    assert "samples_filename_pattern" not in automatic.posted()[0]["override_settings"]


async def test_nothing_is_stored_while_somebody_uses_the_server(
    server: Scripted, engine: Forge
) -> None:
    server.busy()
    boot = options.Boot("1")
    assert await options.pin(inside(engine, "client"), boot, set(KEYS)) is None
    assert server.count("POST /sdapi/v1/options") == 0
    server.rest()
    assert await options.pin(inside(engine, "client"), boot, set(KEYS)) is True
    assert boot.pinned == set(KEYS)


@pytest.mark.parametrize("lacking", ["save_incomplete_images", "return_mask"])
async def test_a_key_the_server_does_not_know_is_not_sent(lacking: str, tmp_path: Path) -> None:
    # An unknown key fails the job with 500 KeyError before sampling.
    scripted = Scripted(automatic=True)
    del scripted.defaults[lacking]
    async with serve(scripted), Forge(config(scripted)) as engine:
        await made(engine, tmp_path)
    assert lacking not in scripted.posted()[0]["override_settings"]
