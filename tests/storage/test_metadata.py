"""What is embedded in pictures: every place tools put it, and damage in each of them."""

import contextlib
import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin, features

from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.storage import Embedded, can_reencode, read_metadata, reencode, sniff
from stablequeue.storage.chunks import LARGEST_TEXT
from stablequeue.storage.exif import ExifTexts, build_exif, decode_comment

RECORDINGS = Path(__file__).parents[1] / "recordings" / "infotext"
INFOTEXT = (
    "a café, 屋根の猫\nsecond line\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, Seed: 7"
)
PROMPT = {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "text": "a café: 猫"}}}
WORKFLOW = {"nodes": [{"id": 3}], "links": [], "extra": {"note": "x: {y}"}}


def png(mode: str = "RGB", *, packed: bool = False, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text, zip=packed)
    stream = io.BytesIO()
    Image.new(mode, (32, 16), 0).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def comfy_png() -> bytes:
    return png(prompt=json.dumps(PROMPT), workflow=json.dumps(WORKFLOW))


def with_exif(form: str, exif: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 16)).save(stream, form, exif=exif)
    return stream.getvalue()


def user_comment(value: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = value
    return exif.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def insert(whole: bytes, before: bytes, data: bytes) -> bytes:
    place = whole.index(before) - 4
    return whole[:place] + data + whole[place:]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", ["a cat\nSteps: 1", INFOTEXT])
def test_an_infotext_in_a_png_comes_back_exactly(text: str, packed: bool) -> None:
    found = read_metadata(png(parameters=text, packed=packed))
    assert found.infotext == text
    assert found.texts == {"parameters": text}


def test_a_comfyui_png_gives_both_graphs() -> None:
    found = read_metadata(comfy_png())
    assert found.comfy_prompt == PROMPT
    assert found.comfy_workflow == WORKFLOW
    assert found.infotext == ""
    assert found


def test_texts_behind_the_picture_data_are_found() -> None:
    comf = chunk(b"comf", b"prompt\0" + json.dumps(PROMPT).encode())
    found = read_metadata(insert(png(), b"IEND", comf))
    assert found.comfy_prompt == PROMPT


def test_utf8_in_a_latin1_chunk_is_read_as_meant() -> None:
    raw = chunk(b"tEXt", b"parameters\0" + "naïve 猫\nSteps: 1".encode())
    assert read_metadata(insert(png(), b"IDAT", raw)).infotext == "naïve 猫\nSteps: 1"
    raw = chunk(b"tEXt", b"parameters\0" + "naïve\nSteps: 1".encode("latin-1"))
    assert read_metadata(insert(png(), b"IDAT", raw)).infotext == "naïve\nSteps: 1"


def test_nan_in_a_graph_becomes_null() -> None:
    text = '{"1": {"class_type": "X", "inputs": {"a": NaN, "b": -Infinity}}}'
    found = read_metadata(png(prompt=text)).comfy_prompt
    assert found["1"]["inputs"] == {"a": None, "b": None}


def test_a_prompt_that_is_no_graph_is_only_a_text() -> None:
    found = read_metadata(png(prompt="just words", Comment='["list"]'))
    assert found.comfy_prompt == {}
    assert found.texts == {"prompt": "just words", "Comment": '["list"]'}
    assert not found


def test_a_picture_without_metadata_says_nothing() -> None:
    assert read_metadata(png()) == Embedded()


def test_the_recorded_exif_of_a_forge_jpeg_is_read() -> None:
    exif = (RECORDINGS / "forge_jpeg.exif").read_bytes()
    found = read_metadata(with_exif("JPEG", exif)).infotext
    assert found.startswith("a cat\nSteps: 1, Sampler: Euler,")
    assert found.endswith("Clip skip: 2, Version: f2.0.1v1.10.1-1.10.1")


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize(
    "value",
    [
        b"UNICODE\0" + INFOTEXT.encode("utf-16-be"),
        b"UNICODE\0" + INFOTEXT.encode("utf-16-le"),
        b"UNICODE\0" + INFOTEXT.encode("utf-16"),
        b"ASCII\0\0\0" + INFOTEXT.encode(),
        b"\0" * 8 + INFOTEXT.encode(),
        INFOTEXT.encode(),
    ],
    ids=["big", "little", "marked", "ascii", "undefined", "bare"],
)
def test_a_user_comment_is_read_in_every_character_set(form: str, value: bytes) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    assert read_metadata(with_exif(form, user_comment(value))).infotext == INFOTEXT


def test_a_japanese_comment_is_read() -> None:
    assert decode_comment(b"JIS\0\0\0\0\0" + "猫\0".encode("shift_jis")) == "猫"


@pytest.mark.parametrize("form", ["WEBP", "JPEG"])
def test_comfyuis_tags_are_read(form: str) -> None:
    # As ComfyUI's animated WEBP node writes them.
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{json.dumps(PROMPT)}"
    exif[0x010F] = f"workflow:{json.dumps(WORKFLOW)}"
    exif[0x010E] = 'other:{"a": 1}'
    found = read_metadata(with_exif(form, exif.tobytes()))
    assert found.comfy_prompt == PROMPT
    assert found.comfy_workflow == WORKFLOW
    assert found.texts["other"] == '{"a": 1}'


def test_graphs_packed_into_one_comment_are_read() -> None:
    packed = json.dumps({"prompt": PROMPT, "workflow": json.dumps(WORKFLOW)})
    found = read_metadata(with_exif("WEBP", user_comment(b"ASCII\0\0\0" + packed.encode())))
    assert (found.comfy_prompt, found.comfy_workflow) == (PROMPT, WORKFLOW)
    assert found.infotext == ""


def test_a_description_serves_where_there_is_no_comment() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a cat, seed 7"
    assert read_metadata(with_exif("JPEG", exif.tobytes())).infotext == "a cat, seed 7"


def test_a_jpeg_comment_counts_only_when_it_is_an_infotext() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", comment=b"a cat\nSteps: 3, Seed: 1")
    assert read_metadata(stream.getvalue()).infotext == "a cat\nSteps: 3, Seed: 1"
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", comment=b"made with a camera")
    assert read_metadata(stream.getvalue()).infotext == ""


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description>
 <rdf:Alt><rdf:li>less</rdf:li></rdf:Alt></dc:description><exif:UserComment><rdf:Alt>
 <rdf:li xml:lang="x-default">a cat &lt;lora:x:1&gt;, Steps: 3</rdf:li></rdf:Alt></exif:UserComment>
 </rdf:Description></rdf:RDF></x:xmpmeta>"""


def test_xmp_is_read_where_there_is_nothing_else() -> None:
    for form in ("WEBP", "JPEG"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, form, xmp=XMP.encode())
        assert read_metadata(stream.getvalue()).infotext == "a cat <lora:x:1>, Steps: 3"
    raw = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())
    assert read_metadata(insert(png(), b"IDAT", raw)).infotext == "a cat <lora:x:1>, Steps: 3"


def test_an_exploding_xmp_is_not_opened() -> None:
    bomb = (
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x><UserComment>&b;</UserComment></x>'
    )
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "WEBP", xmp=bomb.encode())
    assert read_metadata(stream.getvalue()) == Embedded()


def test_a_text_that_explodes_when_unpacked_is_refused() -> None:
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"\0" * (LARGEST_TEXT + 1)))
    with pytest.raises(UnreadableFile, match="too large when unpacked"):
        read_metadata(insert(png(), b"IDAT", bomb))


def test_many_large_texts_are_refused() -> None:
    packed = zlib.compress(b" " * LARGEST_TEXT)
    bombs = b"".join(chunk(b"zTXt", b"k%d\0\0" % number + packed) for number in range(6))
    with pytest.raises(UnreadableFile, match="too large"):
        read_metadata(insert(png(), b"IDAT", bombs))


def test_a_chunk_that_claims_gigabytes_is_refused_unread() -> None:
    lie = struct.pack(">I", 0x7FFFFFFF) + b"tEXtparameters\0x"
    with pytest.raises(UnreadableFile, match="too much"):
        read_metadata(insert(png(), b"IDAT", lie))


def test_a_graph_nested_without_end_is_no_graph() -> None:
    deep = '{"a":' * 100_000
    assert read_metadata(png(prompt=deep)).comfy_prompt == {}


def test_a_cut_off_file_gives_what_stands_before_the_cut() -> None:
    whole = png(parameters=INFOTEXT)
    assert read_metadata(whole[: whole.index(b"IDAT")]).infotext == INFOTEXT


def test_other_files_have_no_metadata(tmp_path: Path) -> None:
    assert not read_metadata(b"just text")
    with pytest.raises(NotFound):
        read_metadata(tmp_path / "none.png")
    with pytest.raises(UnreadableFile):
        read_metadata(b"\0\1\2")


# re-encoding


def reencoded(tmp_path: Path, source: bytes, **options: Any) -> Path:
    path, target = tmp_path / "source", tmp_path / "out" / "target"
    path.write_bytes(source)
    reencode(path, target, **options)
    assert path.read_bytes() == source
    assert [file.name for file in target.parent.iterdir()] == ["target"]
    return target


@pytest.mark.parametrize("form", ["webp", "jpeg"])
def test_metadata_survive_encoding_anew(tmp_path: Path, form: str) -> None:
    for source in (png(parameters=INFOTEXT), comfy_png()):
        target = reencoded(tmp_path, source, format=form, quality=80)
        before, after = read_metadata(source), read_metadata(target)
        assert after.infotext == before.infotext
        assert after.comfy_prompt == before.comfy_prompt
        assert after.comfy_workflow == before.comfy_workflow
        assert sniff(target).mime == f"image/{form}"
        assert (sniff(target).width, sniff(target).height) == (32, 16)


def test_others_find_the_metadata_too(tmp_path: Path) -> None:
    target = reencoded(tmp_path, png(parameters=INFOTEXT), format="webp")
    with Image.open(target) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + INFOTEXT.encode("utf-16-be")
    target = reencoded(tmp_path, comfy_png(), format="jpeg")
    with Image.open(target) as image:
        exif = image.getexif()
    assert exif[0x0110].startswith('prompt:{"3"')
    assert exif[0x010F].startswith('workflow:{"nodes"')


def test_a_workflow_too_large_for_a_jpeg_is_named_as_dropped(tmp_path: Path) -> None:
    large = {"nodes": [{"text": "x" * 70_000}]}
    path = tmp_path / "source.png"
    path.write_bytes(
        png(parameters=INFOTEXT, prompt=json.dumps(PROMPT), workflow=json.dumps(large))
    )
    done = reencode(path, tmp_path / "target.jpg", format="jpeg")
    assert done.dropped == ("workflow",)
    after = read_metadata(tmp_path / "target.jpg")
    assert after.infotext == INFOTEXT
    assert after.comfy_prompt == PROMPT
    assert reencode(path, tmp_path / "target.webp", format="webp").dropped == ()
    assert read_metadata(tmp_path / "target.webp").comfy_workflow == large


def test_an_infotext_too_large_for_a_jpeg_is_named_as_dropped(tmp_path: Path) -> None:
    path = tmp_path / "source.png"
    path.write_bytes(png(parameters="x" * 40_000))
    assert reencode(path, tmp_path / "t.jpg", format="jpeg").dropped == ("parameters",)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
@pytest.mark.parametrize("form", ["webp", "jpeg"])
def test_every_kind_of_pixel_can_be_encoded(tmp_path: Path, mode: str, form: str) -> None:
    target = reencoded(tmp_path, png(mode), format=form)
    assert sniff(target).width == 32


def test_a_hidden_infotext_in_the_alpha_channel_is_no_transparency(tmp_path: Path) -> None:
    stream = io.BytesIO()
    image = Image.new("RGBA", (32, 16), (9, 9, 9, 255))
    image.putpixel((3, 3), (9, 9, 9, 254))
    image.save(stream, "PNG")
    target = reencoded(tmp_path, stream.getvalue(), format="webp")
    with Image.open(target) as found:
        assert found.mode == "RGB"


def test_an_animation_is_not_encoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "moving.png"
    frames = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert not can_reencode(sniff(path), "webp")
    with pytest.raises(UnreadableFile, match="keep the original"):
        reencode(path, tmp_path / "out.webp", format="webp")


def test_a_picture_too_wide_for_webp_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("L", (16_384, 1)).save(path)
    assert not can_reencode(sniff(path), "webp")
    assert can_reencode(sniff(path), "jpeg")


def test_how_a_photograph_is_turned_is_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    target = reencoded(tmp_path, with_exif("JPEG", exif.tobytes()), format="webp")
    with Image.open(target) as image:
        assert image.getexif()[0x0112] == 6


def test_what_is_built_is_what_is_read() -> None:
    block, dropped = build_exif(
        infotext=INFOTEXT,
        named={"workflow": "{}", "prompt": "{ }", "a": "[1]", "b": "{2}"},
        orientation=3,
        largest=60_000,
    )
    found = ExifTexts(block.removeprefix(b"Exif\0\0"))
    assert found.comment == INFOTEXT
    assert found.named == {"workflow": "{}", "prompt": "{ }", "a": "[1]", "b": "{2}"}
    assert found.orientation == 3
    assert dropped == []


# damage


def damaged(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place : place + rng.randint(1, 64)]
            case 2:
                data[place:place] = rng.randbytes(rng.randint(1, 16))
            case _:
                data[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\0\0\xff\xff"])
        if len(data) < 8:
            break
    return bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data)


def embedded_everywhere() -> list[bytes]:
    block, _ = build_exif(
        infotext=INFOTEXT, named={"prompt": json.dumps(PROMPT)}, orientation=6, largest=60_000
    )
    webp = io.BytesIO()
    Image.new("RGB", (32, 16)).save(webp, "WEBP", exif=block, xmp=XMP.encode())
    return [
        png(parameters=INFOTEXT, packed=True),
        comfy_png(),
        with_exif("JPEG", block),
        with_exif("PNG", block),
        webp.getvalue(),
    ]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_five_hundred_damaged_pictures_give_a_result_or_one_error(tmp_path: Path) -> None:
    rng = random.Random(20261121)
    sources = embedded_everywhere()
    path, target = tmp_path / "damaged", tmp_path / "again"
    refusals: list[str] = []
    for number in range(500):
        data = damaged(sources[number % len(sources)], rng)
        path.write_bytes(data)
        with contextlib.suppress(UnreadableFile):
            read_metadata(data)
        try:
            reencode(path, target, format=("webp", "jpeg")[number % 2])
        except UnreadableFile as error:
            refusals.append(str(error))
    assert 100 < len(refusals) < 500
    assert not any("\n" in refusal for refusal in refusals)


def test_damaged_exif_alone_never_raises() -> None:
    rng = random.Random(7)
    block, _ = build_exif(
        infotext=INFOTEXT, named={"prompt": json.dumps(PROMPT)}, orientation=6, largest=60_000
    )
    for _ in range(1000):
        ExifTexts(damaged(block[6:], rng))
