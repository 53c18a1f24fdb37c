"""Which file of a version is the model."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import NoSuitableFile
from stablequeue.models.sources.choosing import Wish, choose, format_of
from stablequeue.models.sources.civitai_answers import EMPTY_SHA256, CivitaiFile, CivitaiVersion
from tests.fakes.civitai import fixture


def lantern() -> CivitaiVersion:
    found = CivitaiVersion.model_validate(fixture("by_hash_bulk")["response"][0])
    assert found.id == 9910202
    return found


def version(*files: dict[str, Any], model_type: str = "Checkpoint") -> CivitaiVersion:
    listed = [
        {
            "id": number,
            "name": "model.safetensors",
            "type": "Model",
            "pickleScanResult": "Success",
            "virusScanResult": "Success",
            "metadata": {"format": "SafeTensor"},
            **file,
        }
        for number, file in enumerate(files, start=1)
    ]
    return CivitaiVersion.model_validate({"id": 9, "files": listed, "model": {"type": model_type}})


def test_unasked_it_is_the_primary_file() -> None:
    assert choose(lantern()).file.id == 9920001


def test_a_hash_finds_the_file_that_matched_which_need_not_be_the_primary_one() -> None:
    assert choose(lantern(), Wish(hash="d3de958c2a")).file.id == 9920002
    assert choose(lantern(), Wish(file_id=9920003)).file.id == 9920003


def test_a_wish_goes_before_the_primary_flag() -> None:
    assert choose(lantern(), Wish(fp="fp32")).file.id == 9920002
    assert choose(lantern(), Wish(size="FULL")).file.id == 9920002
    assert choose(lantern(), Wish(type="VAE")).file.id == 9920003


def test_a_wish_that_cannot_be_had_is_refused_with_what_there_is() -> None:
    with pytest.raises(NoSuitableFile, match="9920001 Model SafeTensor pruned fp16"):
        choose(lantern(), Wish(fp="nf4"))
    with pytest.raises(NoSuitableFile, match="no file 5"):
        choose(lantern(), Wish(file_id=5))
    with pytest.raises(NoSuitableFile, match="not public"):
        choose(lantern(), Wish(hash="ab" * 32))
    with pytest.raises(NoSuitableFile, match="empty file"):
        choose(lantern(), Wish(hash=EMPTY_SHA256[:12]))


@pytest.mark.parametrize("kind", ["Training Data", "Config", "Archive", "Negative"])
def test_what_is_no_model_is_never_taken_even_if_it_is_the_primary_one(kind: str) -> None:
    with pytest.raises(NoSuitableFile):
        choose(version({"type": kind, "primary": True}))


def test_safetensors_go_before_everything_else() -> None:
    found = choose(
        version(
            {"name": "a.gguf", "metadata": {"format": "GGUF"}},
            {"name": "b.ckpt", "metadata": {"format": "PickleTensor"}},
            {"name": "c.safetensors"},
        ),
        Wish(pickle=True),
    )

    assert found.file.id == 3


def test_pickles_are_taken_only_by_wish_and_only_scanned() -> None:
    pickled = {"name": "a.ckpt", "metadata": {"format": "PickleTensor"}, "primary": True}
    assert choose(version(pickled, {})).file.id == 2
    with pytest.raises(NoSuitableFile, match="allow pickles"):
        choose(version(pickled))
    assert choose(version(pickled), Wish(pickle=True)).file.id == 1
    with pytest.raises(NoSuitableFile, match="not scanned"):
        choose(version({**pickled, "pickleScanResult": "Pending"}), Wish(pickle=True))


def test_a_pickle_that_calls_itself_safetensors_is_a_pickle() -> None:
    liar = CivitaiFile.model_validate({"name": "a.pt", "metadata": {"format": "SafeTensor"}})

    assert format_of(liar) == "PickleTensor"


def test_what_a_scan_calls_dangerous_is_refused_even_by_its_id() -> None:
    for scan in ("pickleScanResult", "virusScanResult"):
        with pytest.raises(NoSuitableFile, match="dangerous"):
            choose(version({scan: "Danger"}), Wish(file_id=1, pickle=True))


def test_a_pending_scan_and_a_missing_hash_are_warnings() -> None:
    found = choose(version({"pickleScanResult": "Pending"}))

    assert len(found.warnings) == 2


def test_a_vae_beside_a_checkpoint_is_not_the_model_but_is_on_a_vaes_page() -> None:
    vae = {"type": "VAE", "name": "v.safetensors"}
    with pytest.raises(NoSuitableFile):
        choose(version(vae))
    assert choose(version(vae, model_type="VAE")).file.id == 1


def test_diffusers_and_the_like_are_no_file_for_our_servers() -> None:
    with pytest.raises(NoSuitableFile, match="no safetensors"):
        choose(version({"name": "m.zip", "metadata": {"format": "Diffusers"}}))


def test_gguf_files_are_told_apart_by_their_quantisation() -> None:
    found = choose(
        version(
            {"name": "a.gguf", "metadata": {"format": "GGUF", "quantType": "Q8_0"}},
            {"name": "b.gguf", "metadata": {"format": "GGUF", "quantType": "Q4_K_M"}},
        ),
        Wish(quant="q4_k_m"),
    )

    assert found.file.id == 2


kinds = st.sampled_from(["Model", "Pruned Model", "VAE", "Training Data", "Archive", "Config", ""])
names = st.sampled_from(["a.safetensors", "a.ckpt", "a.zip", "a.gguf", "a.yaml", ""])
scans = st.sampled_from(["Success", "Danger", "Pending", "Error", None])
files = st.fixed_dictionaries(
    {
        "type": kinds,
        "name": names,
        "pickleScanResult": scans,
        "virusScanResult": scans,
        "primary": st.booleans(),
    }
)


@given(st.lists(files, max_size=6), st.booleans())
def test_whatever_is_listed_nothing_dangerous_or_foreign_is_ever_chosen(
    listed: list[dict[str, Any]], pickles: bool
) -> None:
    try:
        found = choose(version(*listed), Wish(pickle=pickles)).file
    except NoSuitableFile:
        assert not any(
            one["type"] == "Model"
            and one["name"] == "a.safetensors"
            and "Danger" not in {one["pickleScanResult"], one["virusScanResult"]}
            for one in listed
        )
        return

    assert found.type in {"Model", "Pruned Model", ""}
    assert "Danger" not in {found.pickle_scan_result, found.virus_scan_result}
    assert pickles or format_of(found) != "PickleTensor"
