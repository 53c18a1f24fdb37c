"""Writing and hashing in a thread, the notes of part files, and what files begin with."""

import asyncio
import hashlib
import json
import random
from io import FileIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stablequeue.errors import NotAModelFile, QueueError, RateLimited, SourceUnreachable
from stablequeue.models.downloads.checking import check_head, check_type
from stablequeue.models.downloads.limits import Limits
from stablequeue.models.downloads.parts import Note, Part, continued, target_of
from stablequeue.models.downloads.spans import Span
from stablequeue.models.downloads.writing import Writer
from stablequeue.models.sources.offer import Offer
from stablequeue.models.sources.patience import Patience
from stablequeue.models.sources.refusals import Answer, general_refusal, retry_at
from tests.fakes.model_files import safetensors

GOOD = '{"version": 1, "ident": "x", "sha256": "", "size": 9, "validator": "", "spans": []}'
OFFER = Offer(source="direct", ident="x", url="https://h.example/a", name="a.safetensors")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    size=st.integers(0, 30_000),
    cuts=st.lists(st.integers(0, 30_000), max_size=10),
    seed=st.integers(0, 1000),
    kept=st.integers(0, 10),
)
def test_pieces_in_any_order_make_the_file_and_its_hash(
    tmp_path: Path, size: int, cuts: list[int], seed: int, kept: int
) -> None:
    data = random.Random(seed).randbytes(size)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    pieces = list(pairwise(edges))
    there, rest = pieces[:kept], pieces[kept:]
    random.Random(seed).shuffle(rest)
    path = tmp_path / "x.part"
    path.write_bytes(b"".join(data[a:b] for a, b in there))
    notes: list[list[Span]] = []

    async def write() -> tuple[int, str]:
        with FileIO(path, "r+") as file:
            writer = Writer(file, there, notes.append, every_s=0.0, most=5000)
            for start, end in rest:
                await writer.write(start, data[start:end])
            done = await writer.finish(flush=True)
            await writer.close()
            return done

    assert asyncio.run(write()) == (size, hashlib.sha256(data).hexdigest())
    assert path.read_bytes() == data
    assert notes[-1] == ([(0, size)] if size else [])


async def test_what_cannot_be_written_is_said_to_who_hands_over_more(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    path.write_bytes(b"")
    with FileIO(path, "r") as read_only:
        writer = Writer(read_only, [], lambda _: None, every_s=0.0, most=10)
        await writer.write(0, b"a" * 100)
        with pytest.raises(OSError, match="not open for writing"):
            await writer.finish(flush=False)
        with pytest.raises(OSError, match="not open for writing"):
            await writer.write(100, b"a")
        await writer.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2}',
        GOOD.replace("9", '"?"'),
        GOOD.replace("[]", "[[0, 99]]"),
        GOOD.replace("[]", "[5]"),
    ],
)
def test_a_note_that_is_damaged_or_tells_more_than_there_is_counts_for_nothing(
    tmp_path: Path, text: str
) -> None:
    part = Part(tmp_path / "a.safetensors")
    part.path.write_bytes(b"x" * 9)
    (tmp_path / "a.safetensors.part.json").write_text(text)

    assert part.read() is None


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    part = Part(tmp_path / "a.safetensors")
    note = Note(ident="x", sha256="ab", size=9, validator='"e"', spans=[(0, 3), (5, 9)])
    part.path.write_bytes(b"x" * 9)

    part.write(note)

    assert part.read() == note
    assert json.loads((tmp_path / "a.safetensors.part.json").read_text())["version"] == 1
    part.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_the_same_file_is_continued() -> None:
    note = Note(ident="x", size=9, validator='"e"', spans=[(0, 3)])

    assert continued(OFFER, note) is note
    for other in (
        Note(ident="y", size=9, validator='"e"', spans=[(0, 3)]),
        Note(ident="x", sha256="ab", size=9, validator='"e"', spans=[(0, 3)]),
        Note(ident="x", size=9, validator="", spans=[(0, 3)]),  # nothing would tell a replaced one
        Note(ident="x", size=2, validator='"e"', spans=[(0, 3)]),
    ):
        assert continued(OFFER, other).spans == []


def test_part_files_know_their_target() -> None:
    for name in ("a.safetensors.part", "a.safetensors.part.json", "a.safetensors.part.json.new"):
        assert target_of(Path("/m") / name) == Path("/m/a.safetensors")
    for name in (".part", "a.partial", "a.part.jsonx", "a.json"):
        assert target_of(Path("/m") / name) is None


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.safetensors", safetensors(400)),
        ("a.sft", safetensors(400)),
        ("a.gguf", b"GGUF\x03\0\0\0"),
        ("a.ckpt", b"PK\x03\x04"),
        ("a.pt", b"\x80\x02"),
        ("a.pth", safetensors(400)),
        ("a.yaml", b"model:\n"),
    ],
)
def test_files_that_begin_as_they_should_pass(name: str, head: bytes) -> None:
    check_head("x", name, head, 400)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.safetensors", b""),
        ("a.safetensors", b"PK\x03\x04" + bytes(60)),
        ("a.safetensors", b'{"error":"File not found"}'),
        ("a.safetensors", (10**6).to_bytes(8, "little") + b"{" + bytes(60)),
        ("a.safetensors", (2**40).to_bytes(8, "little") + b"{" + bytes(60)),
        ("a.gguf", b"GGML" + bytes(60)),
        ("a.ckpt", b"\n\n<!DOCTYPE html>"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:"),
        ("a.yaml", b"<HTML>"),
    ],
)
def test_files_that_begin_as_something_else_are_refused(name: str, head: bytes) -> None:
    with pytest.raises(NotAModelFile):
        check_head("x", name, head, 400)


def test_pages_and_errors_are_refused_by_their_type() -> None:
    for kind in ("text/html", "Text/HTML; charset=utf-8", "application/json", "application/xml"):
        with pytest.raises(NotAModelFile):
            check_type("x", "a.safetensors", kind)
    check_type("x", "a.safetensors", "binary/octet-stream")
    check_type("x", "a.json", "application/json")


async def test_waits_double_up_to_a_limit_and_begin_anew_after_progress() -> None:
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    limits = Limits(tries=6, first_wait_s=1.0, longest_wait_s=4.0)
    patience, error = Patience(limits, pause), SourceUnreachable("x", "y")
    for _ in range(4):
        await patience.failed(error)
    patience.progressed()
    await patience.failed(error)

    ceilings = [1.0, 2.0, 4.0, 4.0, 1.0]
    assert all(most / 2 <= wait <= most for wait, most in zip(waited, ceilings, strict=False))
    for _ in range(4):
        await patience.failed(error)
    with pytest.raises(SourceUnreachable):
        await patience.failed(error)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("5", True),
        ("Wed, 21 Oct 2026 07:28:00 GMT", True),
        ("soon", False),
        ("-3", False),
        ("", False),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, known: bool) -> None:
    assert (retry_at({"retry-after": value}) is not None) == known


@given(
    st.integers(400, 599),
    st.text(max_size=300),
    st.dictionaries(
        st.sampled_from(["retry-after", "content-type", "x-error-code"]), st.text(max_size=40)
    ),
)
def test_every_refusal_is_one_line_that_names_the_source(
    status: int, body: str, headers: dict[str, str]
) -> None:
    error: QueueError = general_refusal(
        Answer(source="host", status=status, headers=headers, body=body)
    )

    assert str(error).startswith("host: ")
    assert "\n" not in str(error)
    assert error.retryable == (status >= 500 or status in {408, 429})
    assert isinstance(error, RateLimited) or status != 429
