"""What a file is, by its bytes."""

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from stablequeue.engines.base import Kind
from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.storage import Sniffed, sniff

SIZE = (70, 33)


def picture(form: str, frames: int = 1, **options: Any) -> bytes:
    images = [Image.new("RGB", SIZE, (40 * number, 90, 120)) for number in range(frames)]
    stream = io.BytesIO()
    if frames > 1:
        options |= {"save_all": True, "append_images": images[1:], "duration": 50}
    images[0].save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "mime", "suffix"),
    [
        ("PNG", "image/png", ".png"),
        ("JPEG", "image/jpeg", ".jpg"),
        ("WEBP", "image/webp", ".webp"),
        ("GIF", "image/gif", ".gif"),
        ("AVIF", "image/avif", ".avif"),
    ],
)
def test_a_picture_is_known_with_its_size(form: str, mime: str, suffix: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    found = sniff(picture(form))
    assert found == Sniffed(kind=Kind.IMAGE, mime=mime, width=70, height=33)
    assert found.suffix == suffix


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0" + b"x" * 20}])
def test_every_form_of_webp_tells_its_size(options: dict[str, Any]) -> None:
    found = sniff(picture("WEBP", **options))
    assert (found.width, found.height, found.animated) == (70, 33, False)


def test_a_jpegs_size_is_found_behind_its_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    found = sniff(picture("JPEG", exif=exif, progressive=True))
    assert (found.width, found.height) == SIZE


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_an_animation_is_known_as_one(form: str) -> None:
    assert sniff(picture(form, frames=3)).animated
    assert not sniff(picture(form)).animated


def test_a_single_large_gif_frame_is_not_taken_for_a_still_unread() -> None:
    noise = Image.effect_noise((1200, 1200), 90)
    stream = io.BytesIO()
    noise.save(stream, "GIF", save_all=True, append_images=[Image.new("L", (1200, 1200))])
    assert len(stream.getvalue()) > 600_000
    assert sniff(stream.getvalue()).animated


@pytest.mark.parametrize(
    ("head", "kind", "suffix"),
    [
        (b"\0\0\0\x18ftypisom\0\0\0\0", Kind.VIDEO, ".mp4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", Kind.VIDEO, ".mov"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", Kind.VIDEO, ".mov"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0", Kind.AUDIO, ".m4a"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", Kind.VIDEO, ".webm"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", Kind.VIDEO, ".mkv"),
        (b"RIFF\x24\0\0\0WAVEfmt ", Kind.AUDIO, ".wav"),
        (b"ID3\x04\0\0\0\0\0\0", Kind.AUDIO, ".mp3"),
        (b"\xff\xfb\x90\x64\0\0", Kind.AUDIO, ".mp3"),
        (b"fLaC\0\0\0\x22", Kind.AUDIO, ".flac"),
        (b"OggS\0\x02", Kind.AUDIO, ".ogg"),
        ("ein Wörterbuch\n".encode(), Kind.TEXT, ".txt"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'></svg>", Kind.TEXT, ".svg"),
    ],
)
def test_sound_video_and_text_are_known(head: bytes, kind: Kind, suffix: str) -> None:
    found = sniff(head)
    assert (found.kind, found.suffix) == (kind, suffix)


def test_a_text_cut_inside_a_character_is_still_text() -> None:
    assert sniff(b"x" + "ä".encode() * 400_000).kind is Kind.TEXT


def test_the_suffix_of_the_name_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "wrong.png"
    path.write_bytes(picture("JPEG"))
    assert sniff(path).mime == "image/jpeg"


@pytest.mark.parametrize("data", [b"", b"\0\1\2\3", b"\xff\xfe\0", struct.pack("<Q", 9) * 4])
def test_what_is_nothing_we_store_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableFile):
        sniff(data)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.png"):
        sniff(tmp_path / "none.png")


_HEADS = [picture("PNG", 2), picture("JPEG"), picture("WEBP", 2), picture("GIF", 2), b"ftyp"]


@settings(deadline=None)
@given(st.sampled_from(_HEADS), st.integers(0, 400), st.binary(max_size=40))
def test_damaged_heads_never_raise_anything_else(whole: bytes, cut: int, junk: bytes) -> None:
    with contextlib.suppress(UnreadableFile):
        sniff(whole[:cut] + junk)
