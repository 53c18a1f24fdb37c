"""Which files of the library reach a server, and under which name it lists them."""

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stablequeue.models.folders import Root
from stablequeue.models.kinds import ModelType
from stablequeue.pipeline.delivery import (
    host_of,
    listed_as,
    lists_library,
    path_there,
    roots_for,
    undelivered,
)
from stablequeue.servers import ServerConfig


def server(**values: Any) -> ServerConfig:
    common = {"alias": "gpu", "type": "forge", "url": "http://127.0.0.1:7860"}
    return ServerConfig.model_validate({**common, **values})


WINDOWS = server(
    models_from="mapped",
    model_paths=["/srv/models=D:\\models", "/srv/models/loras=\\\\nas\\loras"],
)


def test_a_server_that_says_nothing_gets_no_files() -> None:
    assert path_there(server(), Path("/srv/models/a.safetensors")) == ""
    refusal = undelivered(server(), "checkpoint 'version:1'")
    assert (refusal.code, refusal.retryable) == ("not_delivered", False)
    assert "--models-from same" in str(refusal)


def test_the_same_folders_mean_the_same_paths() -> None:
    here = server(models_from="same")
    assert path_there(here, Path("/srv/models/a.safetensors")) == "/srv/models/a.safetensors"
    assert host_of(here) == ""


def test_the_folders_of_the_workers_machine_are_that_machines_alone() -> None:
    own = server(models_from="worker")
    assert path_there(own, Path("/srv/models/a.safetensors")) == "/srv/models/a.safetensors"
    assert host_of(own) == socket.gethostname()


def test_a_windows_server_gets_backslashes_and_the_innermost_mapping_counts() -> None:
    file = Path("/srv/models/Stable-diffusion/sub/a.safetensors")
    assert path_there(WINDOWS, file) == "D:\\models\\Stable-diffusion\\sub\\a.safetensors"
    assert path_there(WINDOWS, Path("/srv/models/loras/x.safetensors")) == (
        "\\\\nas\\loras\\x.safetensors"
    )
    assert path_there(WINDOWS, Path("/srv/models-2/x.safetensors")) == ""
    assert "--model-path" in str(undelivered(WINDOWS, "x", Path("/elsewhere/x.safetensors")))


def test_a_server_that_lists_mostly_what_the_library_has_reads_its_folders() -> None:
    files = [Path("/m/checkpoints/sub dir/Big One.safetensors"), Path("/m/loras/crane.safetensors")]
    assert lists_library(files, ["sub dir\\Big One.safetensors [1a2b3c4d5e]", "crane"])
    assert lists_library(files, ["crane", "elsewhere.safetensors"])
    assert not lists_library(files, ["crane", "one.safetensors", "two.safetensors"])
    assert not lists_library(files, ["rane", "One.safetensors"])
    assert not lists_library(files, [])
    assert not lists_library([], ["crane"])


def test_new_files_go_only_where_the_server_sees_them() -> None:
    roots = [
        Root(Path("/local/loras"), ModelType.LORA, ""),
        Root(Path("/srv/models/loras"), ModelType.LORA, ""),
        Root(Path("/srv/models/vae"), ModelType.VAE, ""),
    ]
    assert roots_for(WINDOWS, roots, ModelType.LORA) == [roots[1]]
    assert roots_for(server(), roots, ModelType.LORA) == []


@pytest.mark.parametrize("wrong", ["/srv/models", "=D:\\x", "/srv/models= "])
def test_a_mapping_without_both_sides_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="LOCAL=REMOTE"):
        server(models_from="mapped", model_paths=[wrong])


@pytest.mark.parametrize(
    ("there", "listed", "found"),
    [
        ("D:\\m\\ckpt\\sub\\a.safetensors", ["sub\\a.safetensors [0123456789]"], 0),
        ("/m/loras/sub/a.safetensors", ["a.safetensors", "sub/a.safetensors"], 1),
        ("/m/loras/sub/a.safetensors", ["other/a.safetensors"], None),
        ("/m/loras/sub/a.safetensors", ["a", "b"], 0),
        ("/m/loras/a.safetensors", ["ba.safetensors"], None),
        ("/m/a [v1].safetensors", ["a [v1].safetensors"], 0),
        ("/m/loras/a.safetensors", [], None),
    ],
)
def test_a_file_is_listed_by_the_end_of_its_path(
    there: str, listed: list[str], found: int | None
) -> None:
    assert listed_as(there, listed) == ("" if found is None else listed[found])


def test_two_that_could_be_it_are_none() -> None:
    assert listed_as("/m/a.safetensors", ["a", "a.safetensors"]) == ""


part = st.text("ab é.-[1]", min_size=1, max_size=6).filter(lambda text: text.strip(". ") != "")


@given(st.lists(part, min_size=1, max_size=4), st.integers(0, 3), st.sampled_from("/\\"))
def test_whatever_root_a_server_has_its_own_name_for_a_file_is_found(
    parts: list[str], cut: int, separator: str
) -> None:
    parts = [part.strip() for part in parts]
    name = separator.join(parts[min(cut, len(parts) - 1) :]) + ".safetensors"
    there = "/root/" + "/".join(parts) + ".safetensors"
    assert listed_as(there, [name, "unlike.safetensors"]) == name
