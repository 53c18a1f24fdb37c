"""The model files a sandbox pretends to have."""

from stablequeue.sandbox import ModelShelf, default_models
from stablequeue.sandbox.models import CHECKPOINTS, LORAS


def test_the_usual_names_are_awkward() -> None:
    names = " ".join(default_models().names(CHECKPOINTS))
    assert all(sign in names for sign in ("/", " ", "[", "(", "ü", "日"))


def test_names_have_the_servers_separator() -> None:
    shelf = default_models(separator="\\")
    name = "sub dir\\landscapes v2 [pruned].safetensors"
    assert name in shelf.names(CHECKPOINTS)
    assert shelf.find(CHECKPOINTS, name) is not None
    assert shelf.find(CHECKPOINTS, name.replace("\\", "/")) is None


def test_a_file_can_come_and_go() -> None:
    shelf = ModelShelf()
    shelf.add(LORAS, "new.safetensors", size_mb=10)
    assert shelf.names(LORAS) == ["new.safetensors"]
    shelf.remove(LORAS, "new.safetensors")
    assert shelf.names(LORAS) == []


def test_hashes_are_stable_and_differ() -> None:
    files = default_models().files
    assert len({file.sha256 for file in files}) == len(files)
    assert [f.short_hash for f in files] == [f.sha256[:10] for f in default_models().files]
