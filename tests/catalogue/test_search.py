"""Full-text search."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from stablequeue.catalogue import Asset, Catalogue
from stablequeue.engines.base import Kind
from stablequeue.errors import BadRequest
from tests.catalogue.making import accepted, begun, new_asset, stored

HOSTILE = (
    '"',
    '""',
    '"unclosed',
    "'",
    "cat'",
    "*",
    "**",
    "cat**",
    "*cat",
    "(",
    "cat)",
    "NEAR(cat dog)",
    "AND",
    "cat AND",
    "NOT cat",
    "OR OR",
    "search:cat",
    "{search}:cat",
    "^cat",
    "cat + dog",
    "cat & dog | !bird",
    "cat <-> dog",
    "cat:*",
    ":*",
    "\\",
    "'; DROP TABLE assets; --",
    "\0",
    "cat\0dog",
    "\ud800",
    "%",
    "_",
    "_1",
    "_1*",
    "-cat",
    "猫*",
    "e\u0301",
    "\u202e",
    "a" * 10_000,
    "cat " * 5_000,
    "🐈 cat",
)


@pytest.fixture
def cats(catalogue: Catalogue) -> list[Asset]:
    """Three pictures, oldest first."""
    return [
        stored(catalogue, "a black cat, (masterpiece:1.2), blue_eyes"),
        stored(catalogue, "white cats and a black dog", tags=("Pets",)),
        stored(catalogue, "Crème brûlée; 黒い猫が好き; Привет", server="gpu-b"),
    ]


def test_every_word_must_occur_in_any_order(catalogue: Catalogue, cats: list[Asset]) -> None:
    assert catalogue.search("black") == [cats[1], cats[0]]
    assert catalogue.search("cat black") == [cats[0]]
    assert catalogue.search("BLACK, Dog!") == [cats[1]]
    assert catalogue.search("black bird") == []


def test_a_star_finds_words_that_begin_so(catalogue: Catalogue, cats: list[Asset]) -> None:
    assert catalogue.search("cat*") == [cats[1], cats[0]]
    assert catalogue.search("c*") == [cats[2], cats[1], cats[0]]
    assert catalogue.search("masterpie*") == [cats[0]]
    assert catalogue.search("masterpiece*") == [cats[0]]
    assert catalogue.search("cat* do*") == [cats[1]]


def test_a_quoted_phrase_is_found_in_order(catalogue: Catalogue, cats: list[Asset]) -> None:
    assert catalogue.search('"black cat"') == [cats[0]]
    assert catalogue.search('"cat black"') == []
    assert catalogue.search('"black dog" white') == [cats[1]]
    assert catalogue.search('"black ca') == [], "an unclosed phrase is still one of whole words"


def test_pieces_of_prompts_are_found_as_they_stand(catalogue: Catalogue, cats: list[Asset]) -> None:
    assert catalogue.search("blue_eyes") == [cats[0]]
    assert catalogue.search("eyes_blue") == []
    assert catalogue.search("(masterpiece:1.2)") == [cats[0]]
    assert catalogue.search("blue_ey*") == [cats[0]]


def test_accents_case_and_scripts_do_not_matter(catalogue: Catalogue, cats: list[Asset]) -> None:
    assert catalogue.search("creme BRULEE") == [cats[2]]
    assert catalogue.search("crème") == [cats[2]]
    assert catalogue.search("привет") == [cats[2]]
    assert catalogue.search("猫") == [cats[2]]
    assert catalogue.search("黒い猫") == [cats[2]]
    assert catalogue.search("猫黒") == []
    assert catalogue.search("\uff43\uff52\uff45\uff4d\uff45") == [cats[2]], "full width letters"


def test_blank_text_finds_everything_newest_first(catalogue: Catalogue, cats: list[Asset]) -> None:
    for text in ("", "  ", "*", "\n"):
        assert catalogue.search(text) == cats[::-1]


def test_text_without_a_word_finds_nothing(catalogue: Catalogue, cats: list[Asset]) -> None:
    assert len(cats) == 3
    for text in ("!!!", '""', "_", "\0"):
        assert catalogue.search(text) == []


def test_hostile_text_is_only_text(catalogue: Catalogue, cats: list[Asset]) -> None:
    for text in HOSTILE:
        assert all(asset in cats for asset in catalogue.search(text)), text
        assert isinstance(catalogue.search(model=text, tag=text, server=text), list), text
    assert catalogue.search("_1") == catalogue.search("1"), "no text can name a facet"


def test_models_are_found_by_name_path_stem_and_hash(catalogue: Catalogue) -> None:
    sha = "0123456789abcdef" * 4
    one = stored(
        catalogue, models={r"SDXL\Juggernaut XL [v9].safetensors": sha, "detail": "1234567890"}
    )
    stored(catalogue, models={"other.safetensors": "f" * 64})

    for name in (
        "SDXL/Juggernaut XL [v9].safetensors",
        r"sdxl\juggernaut xl [v9].safetensors",
        "Juggernaut XL [v9].safetensors",
        "juggernaut xl [v9]",
        sha,
        sha.upper(),
        sha[:10],
        "DETAIL",
        "1234567890",
        "1234567890" + "a" * 54,  # a whole SHA-256 where only its beginning was known
    ):
        assert catalogue.search(model=name) == [one], name
    for name in ("Juggernaut", "XL", sha[:9], "nothing", "SDXL", "%"):
        assert catalogue.search(model=name) == [], name
    assert catalogue.search("juggernaut v9") == [one], "its words are searched too"


def test_server_kind_and_tag_filter(catalogue: Catalogue) -> None:
    one = stored(catalogue, server="gpu-a", kind=Kind.VIDEO, tags=("Straße", "x"))
    two = stored(catalogue, server="gpu-b", kind=Kind.IMAGE, tags=("x",))

    assert catalogue.search(server="gpu-a") == [one]
    assert catalogue.search(kind=Kind.IMAGE) == [two]
    assert catalogue.search(tag="X") == [two, one]
    assert catalogue.search(tag="STRASSE") == [one]
    assert catalogue.search("cat", server="gpu-b", kind=Kind.IMAGE, tag="x") == [two]
    assert catalogue.search("cat", server="gpu-b", kind=Kind.VIDEO) == []
    assert catalogue.search("strasse") == [one], "tags are words too"
    assert catalogue.search(server="gpu-c") == []


def test_pages_follow_each_other_without_gap_or_repeat(catalogue: Catalogue) -> None:
    made = [stored(catalogue, "cat", tags=("t",)) for _ in range(11)][::-1]
    for text, tag in (("", ""), ("cat", ""), ("", "t")):
        found: list[Asset] = []
        before: int | None = None
        while page := catalogue.search(text, tag=tag, limit=4, before=before):
            found += page
            before = page[-1].id
        assert found == made
    assert catalogue.search("cat", limit=0) == []
    assert catalogue.search("cat", limit=-5) == []
    assert catalogue.search("cat", limit=10**9) == made
    assert catalogue.search("cat", before=0) == []
    assert catalogue.search("cat", before=10**30) == made
    assert catalogue.search(before=-(10**30)) == []


def test_dates_limit_to_the_microsecond(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    steps = [timedelta(0), timedelta(microseconds=1), timedelta(hours=1), timedelta(days=400)]
    made = [_stored_at(catalogue, monkeypatch, noon + step) for step in steps]

    for text in ("", "cat"):
        assert catalogue.search(text, since=noon) == made[::-1]
        assert catalogue.search(text, since=noon + steps[1]) == made[:0:-1]
        assert catalogue.search(text, until=noon + steps[1]) == made[:1]
        assert catalogue.search(text, since=noon + steps[1], until=noon + steps[3]) == [
            made[2],
            made[1],
        ]
        assert catalogue.search(text, until=noon) == []
        assert catalogue.search(text, since=noon + timedelta(days=500)) == []
        assert catalogue.search(text, since=noon + steps[2], before=made[2].id) == []
    east = timezone(timedelta(hours=9))
    assert catalogue.search(since=(noon + steps[3]).astimezone(east)) == made[3:]
    assert catalogue.search(until=noon + steps[1], since=noon + steps[2]) == []


def test_dates_stay_exact_when_the_clock_jumps(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    days = [0, 400, 1, -900, 2]  # a clock far ahead, then behind
    made = [_stored_at(catalogue, monkeypatch, noon + timedelta(days=day)) for day in days]

    for text in ("", "cat"):
        for since in days:
            for until in days:
                expected = [
                    asset for asset, day in zip(made, days, strict=True) if since <= day < until
                ]
                found = catalogue.search(
                    text, since=noon + timedelta(days=since), until=noon + timedelta(days=until)
                )
                assert found == expected[::-1]


def test_a_date_needs_a_time_zone_and_a_sane_year(catalogue: Catalogue) -> None:
    naive = datetime(2026, 11, 21)  # noqa: DTZ001  # what is refused
    with pytest.raises(BadRequest, match="since"):
        catalogue.search(since=naive)
    with pytest.raises(BadRequest, match="until"):
        catalogue.search(until=naive)
    far = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
    with pytest.raises(BadRequest, match="until"):
        catalogue.search(until=far)
    stored(catalogue)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert len(catalogue.search(since=first, until=last)) == 1


def test_a_workflow_is_found_by_its_texts(catalogue: Catalogue) -> None:
    workflow = {
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "  ", "clip": ["4", 1]}},
        "8": {"class_type": "SaveImage", "inputs": {"filename_prefix": "hidden"}},
    }
    job = accepted(catalogue, "", mode="workflow", workflow=workflow)
    (asset,) = catalogue.record_assets(begun(catalogue, job.job_id).id, [new_asset()])

    assert asset.prompt == "a red fox"
    assert catalogue.search('"red fox"') == [asset]
    assert catalogue.search("hidden") == []


def test_a_picture_with_its_own_prompt_is_found_by_that(catalogue: Catalogue) -> None:
    asset = stored(catalogue, "a __colour__ cat", prompt="a green cat")
    assert asset.prompt == "a green cat"
    assert catalogue.search("green") == [asset]
    assert catalogue.search("colour") == []


def test_very_long_prompts_are_searchable(catalogue: Catalogue) -> None:
    words = [f"w{number}" for number in range(14_000)]
    asset = stored(catalogue, " ".join(words))
    repeated = stored(catalogue, "cat " * 20_000 + "end")
    assert catalogue.search("w13999 w0") == [asset]
    assert catalogue.search('"w13998 w13999"') == [asset]
    assert catalogue.search("cat") == [repeated]


def test_texts_of_any_size_are_recorded(catalogue: Catalogue) -> None:
    grows = "\ufdfa" * 60_000  # each becomes four words of 15 letters
    distinct = " ".join(f"{number:064}" for number in range(30_000))
    for text in (grows, distinct):
        asset = stored(catalogue, prompt=f"first {text}", infotext=text, tags=("found",))
        assert catalogue.search("first found") == [asset]
        catalogue.trash(asset.id)


def _stored_at(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, moment: datetime) -> Asset:
    monkeypatch.setattr("stablequeue.catalogue.recording.now", lambda: moment)
    asset = stored(catalogue, "cat")
    assert asset.created_at == moment
    return asset
