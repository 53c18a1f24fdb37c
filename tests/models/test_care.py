"""Evicting, renaming and deleting models."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import BadRequest, NotFound, Refused
from stablequeue.models.care import delete, plan_eviction, rename
from stablequeue.models.folders import Root
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from stablequeue.models.records import ModelFile
from tests.models.making import model

DAY = 24 * 60 * 60 * 1000


def _file(  # noqa: PLR0917  # reads as a table where it is used
    name: str,
    size: int,
    uses: int = 0,
    last: int = 0,
    pinned: bool = False,
    mtime_ns: int = 0,
) -> ModelFile:
    return ModelFile(
        path=Path("/m") / name,
        root=Path("/m"),
        name=name,
        kind=ModelType.LORA,
        size=size,
        sha256=name,
        uses=uses,
        last_used_ms=last,
        pinned=pinned,
        mtime_ns=mtime_ns,
    )


def test_the_least_used_go_first_then_the_longest_unused_then_the_largest() -> None:
    files = [
        _file("often", 10, uses=9, last=1),
        _file("old", 10, uses=1, last=1),
        _file("new", 10, uses=1, last=2),
        _file("small", 5),
        _file("large", 20),
    ]

    plan = plan_eviction(files, 0)

    assert [one.name for one in plan.evict] == ["large", "small", "old", "new", "often"]
    assert (plan.size, plan.freed, plan.remaining, plan.enough) == (55, 55, 0, True)


def test_no_more_is_evicted_than_needed() -> None:
    files = [_file("a", 10), _file("b", 10, uses=1), _file("c", 10, uses=2)]

    plan = plan_eviction(files, 25)

    assert [one.name for one in plan.evict] == ["a"]
    assert plan_eviction(files, 30).evict == ()


def test_pins_and_what_a_job_needs_are_safe_and_named() -> None:
    files = [
        _file("pinned", 10, pinned=True),
        _file("by-hash", 10),
        _file("by-path", 10),
        _file("free", 10, uses=5),
    ]

    plan = plan_eviction(files, 0, needed={"by-hash", "/m/by-path"})

    assert [one.name for one in plan.evict] == ["free"]
    assert {(one.name, why) for one, why in plan.kept} == {
        ("pinned", "pinned"),
        ("by-hash", "a waiting job needs it"),
        ("by-path", "a waiting job needs it"),
    }
    assert (plan.remaining, plan.enough) == (30, False)


def test_what_was_used_or_added_lately_may_rest() -> None:
    now = 100 * DAY
    files = [
        _file("used", 1, uses=1, last=99 * DAY),
        _file("added", 1, mtime_ns=99 * DAY * 1_000_000),
        _file("stale", 1, uses=1, last=50 * DAY),
    ]

    plan = plan_eviction(files, 0, now_ms=now, rest_days=7)

    assert [one.name for one in plan.evict] == ["stale"]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), max_size=12),
    st.integers(0, 40),
)
def test_a_plan_is_the_smallest_beginning_of_the_order_that_suffices(
    made: list[tuple[int, int, bool]], limit: int
) -> None:
    files = [_file(str(n), size, uses, 0, pinned) for n, (size, uses, pinned) in enumerate(made)]

    plan = plan_eviction(files, limit)

    assert not any(one.pinned for one in plan.evict)
    assert plan.remaining == sum(one.size for one in files if one not in plan.evict)
    assert plan.enough or all(one.pinned for one in files if one not in plan.evict)
    if plan.evict:
        assert plan.remaining + plan.evict[-1].size > limit


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """A folder with one LoRA and what belongs to it."""
    folder = tmp_path / "loras"
    path = model(folder / "crane.safetensors", "one")
    for suffix in (".json", ".civitai.info", ".preview.png"):
        path.with_suffix("").with_name("crane" + suffix).write_text("{}")
    model(folder / "crane two.safetensors", "two")
    return folder


@pytest.fixture
def library(tmp_path: Path, loras: Path) -> Library:
    """A library that knows them."""
    made = Library(tmp_path / "home")
    made.scan([Root(loras, ModelType.LORA, "test")])
    return made


def _listed(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_renaming_takes_everything_along(library: Library, loras: Path) -> None:
    file = library.file(loras / "crane.safetensors")
    library.record_use([file])

    new = rename(library, file, "birds\\paper v1.0")

    assert new == loras / "birds" / "paper v1.0.safetensors"
    assert _listed(loras) == [
        "birds/paper v1.0.civitai.info",
        "birds/paper v1.0.json",
        "birds/paper v1.0.preview.png",
        "birds/paper v1.0.safetensors",
        "crane two.safetensors",
    ]
    assert library.file(new).uses == 1
    report = library.scan([Root(loras, ModelType.LORA, "test")])
    assert (report.added, report.missing, report.hashed) == ((), (), 0)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "x.ckpt", "", "a/../../b"])
def test_an_impossible_name_changes_nothing(name: str, library: Library, loras: Path) -> None:
    before = _listed(loras)

    with pytest.raises(BadRequest):
        rename(library, library.file(loras / "crane.safetensors"), name)

    assert _listed(loras) == before


def test_nothing_is_overwritten_by_renaming(library: Library, loras: Path) -> None:
    (loras / "other.json").write_text("a text of somebody")
    before = _listed(loras)

    for name in ("crane two", "other"):
        with pytest.raises(Refused, match="is there already"):
            rename(library, library.file(loras / "crane.safetensors"), name)

    assert _listed(loras) == before


def test_a_file_that_is_gone_cannot_be_renamed(library: Library, loras: Path) -> None:
    file = library.file(loras / "crane.safetensors")
    file.path.unlink()

    with pytest.raises(NotFound, match="models scan"):
        rename(library, file, "x")


def test_deleting_takes_everything_along_and_usage_is_remembered(
    library: Library, loras: Path
) -> None:
    file = library.file(loras / "crane.safetensors")
    library.record_use([file])

    deleted = delete(library, file)

    assert len(deleted) == 4
    assert _listed(loras) == ["crane two.safetensors"]
    assert [one.name for one in library.files()] == ["crane two.safetensors"]
    model(loras / "again.safetensors", "one")
    library.scan([Root(loras, ModelType.LORA, "test")])
    assert library.file(loras / "again.safetensors").uses == 1


def test_a_pinned_model_is_not_deleted(library: Library, loras: Path) -> None:
    library.pin(library.file(loras / "crane.safetensors"))

    with pytest.raises(Refused, match="unpin it first"):
        delete(library, library.file(loras / "crane.safetensors"))

    assert (loras / "crane.safetensors").exists()


def test_a_link_is_deleted_and_not_what_it_leads_to(
    library: Library, loras: Path, tmp_path: Path
) -> None:
    real = model(tmp_path / "real.safetensors", "three")
    (loras / "link.safetensors").symlink_to(real)
    library.scan([Root(loras, ModelType.LORA, "test")])

    delete(library, library.file(loras / "link.safetensors"))

    assert real.exists()
    assert not (loras / "link.safetensors").is_symlink()
