"""What a person may give for a model."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stablequeue.errors import BadRequest
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.references import (
    CivitaiImage,
    CivitaiModel,
    CivitaiVersion,
    DirectUrl,
    Hash,
    HashKind,
    HuggingFaceFile,
    Name,
    Number,
    Reference,
    Tag,
    parse_reference,
)

SHA = "2c6ac23e4ffdf95f08f369eca6488b585bca0def0ddfe69f525e40d4aa2509d3"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tiny.safetensors", Name("tiny.safetensors")),
        (" sub dir/tiny (v1) [x].safetensors ", Name("sub dir/tiny (v1) [x].safetensors")),
        ("win\\sub\\model.ckpt", Name("win\\sub\\model.ckpt")),
        ("C:\\models\\a.safetensors", Name("C:\\models\\a.safetensors")),
        ("C:/models/a.safetensors", Name("C:/models/a.safetensors")),
        ('"quoted name"', Name("quoted name")),
        ("модель-ünï", Name("модель-ünï")),
        ("tiny.safetensors [1A2B3C4D5E]", Name("tiny.safetensors", "1a2b3c4d5e")),
        ("tiny [1a2b3c4d]", Name("tiny", "1a2b3c4d")),
        ("embedding:quiet_embed", Name("quiet_embed", kind=ModelType.EMBEDDING)),
        ("owner/repo/file.safetensors", Name("owner/repo/file.safetensors")),
    ],
)
def test_names_and_titles_are_kept_as_written(text: str, wanted: Name) -> None:
    assert parse_reference(text) == wanted


@pytest.mark.parametrize(
    ("text", "digits", "kinds"),
    [
        (SHA.upper(), SHA, (HashKind.SHA256, HashKind.BLAKE3, HashKind.TENSORS)),
        ("0x" + SHA, SHA, (HashKind.SHA256, HashKind.BLAKE3, HashKind.TENSORS)),
        ("4ED7C7B88A02", "4ed7c7b88a02", (HashKind.AUTOV3, HashKind.SHA256)),
        ("2C6AC23E4F", "2c6ac23e4f", (HashKind.AUTOV2,)),
        ("F4141E7B", "f4141e7b", (HashKind.AUTOV1, HashKind.CRC32)),
        ("crc32:366149F5", "366149f5", (HashKind.CRC32,)),
        ("SHA256:" + SHA, SHA, (HashKind.SHA256,)),
        ("blake3:" + SHA, SHA, (HashKind.BLAKE3,)),
        ("sha256:2c6ac23e4ffd", "2c6ac23e4ffd", (HashKind.SHA256,)),
        ("autov1:f4141e7b", "f4141e7b", (HashKind.AUTOV1,)),
    ],
)
def test_hashes_are_told_by_length_or_prefix(
    text: str, digits: str, kinds: tuple[HashKind, ...]
) -> None:
    found = parse_reference(text)

    assert found == Hash(digits, kinds)
    assert isinstance(found, Hash)
    assert found.text == text  # it may be a file's name all the same


@pytest.mark.parametrize(
    "text", ["e3b0c44298fc", "E3B0C442", "0xe3b0c44298fc", f"autov3:{'e3b0c44298fc'}"]
)
def test_the_hash_of_no_bytes_is_never_looked_for(text: str) -> None:
    with pytest.raises(BadRequest, match="hash of no bytes"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<lora:paper_crane_style-10:0.8>", Tag("paper_crane_style-10", ModelType.LORA, 0.8, 0.8)),
        ("<lora:sub name.v1:-0.5:0.7>", Tag("sub name.v1", ModelType.LORA, 0.7, -0.5)),
        ("<lora:a>", Tag("a")),
        ("<lyco:a:1>", Tag("a")),
        ("<lora:a:te=0.2:unet=0.9>", Tag("a", ModelType.LORA, 0.9, 0.2)),
        ("<lora:a:0.4:unet=0.9:dyn=8>", Tag("a", ModelType.LORA, 0.9, 0.4)),
        ("<hypernet:h:0.5>", Tag("h", ModelType.HYPERNETWORK, 0.5, 0.5)),
        ("<lora:модель:1>", Tag("модель")),
    ],
)
def test_tags_follow_a1111s_rules(text: str, wanted: Tag) -> None:
    assert parse_reference(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://civitai.com/models/9900200", CivitaiModel(9900200)),
        ("https://civitai.com/models/9900200/paper-crane-2-style", CivitaiModel(9900200)),
        (
            "HTTPS://CivitAI.com/models/9900200/x?modelVersionId=9910301#top",
            CivitaiVersion(9910301, 9900200),
        ),
        ("civitai.red/models/1?modelVersionId=2", CivitaiVersion(2, 1)),
        ("www.civitai.com/models/1", CivitaiModel(1)),
        ("http://civitai.green/models/1", CivitaiModel(1)),
        ("https://civitai.com/model-versions/9910301", CivitaiVersion(9910301)),
        ("https://civitai.com/api/v1/model-versions/9910301", CivitaiVersion(9910301)),
        ("https://civitai.com/api/v1/models/9900200", CivitaiModel(9900200)),
        ("https://civitai.com/api/download/models/9910301", CivitaiVersion(9910301)),
        (
            "https://civitai.com/api/download/models/9910301?fileId=9920201&token=s3cr3t",
            CivitaiVersion(9910301, file_id=9920201),
        ),
        (
            "https://civitai.com/api/download/models/7?type=Pruned%20Model&format=SafeTensor&fp=fp16",
            CivitaiVersion(
                7, wish=(("type", "Pruned Model"), ("format", "SafeTensor"), ("fp", "fp16"))
            ),
        ),
        ("https://civarchive.com/models/1?modelVersionId=2", CivitaiVersion(2, 1)),
        ("https://civitai.com/images/9930001", CivitaiImage(9930001)),
        ("urn:air:sdxl:checkpoint:civitai:101055@128078", CivitaiVersion(128078, 101055)),
        ("urn:air:sdxl:lora:civitai:1@2+3.safetensors", CivitaiVersion(2, 1, 3)),
        ("URN:AIR:flux1:lora:civitai:1@2", CivitaiVersion(2, 1)),
        ("air:sdxl:lora:civitai:1@2", CivitaiVersion(2, 1)),
        ("sdxl:lora:civitai:1@2:layer", CivitaiVersion(2, 1)),
        ("civitai:101055@128078", CivitaiVersion(128078, 101055)),
        ("civitai:101055", CivitaiModel(101055)),
        ("101055@128078", CivitaiVersion(128078, 101055)),
        ("version:128078", CivitaiVersion(128078)),
        ("model:101055", CivitaiModel(101055)),
        ("image:5", CivitaiImage(5)),
        ("128078", Number(128078)),
    ],
)
def test_every_way_to_name_something_on_civitai(text: str, wanted: Reference) -> None:
    found = parse_reference(text)

    assert found == wanted
    assert parse_reference(str(found)) == found


def test_an_air_keeps_its_type_as_a_hint() -> None:
    found = parse_reference("urn:air:sdxl:lycoris:civitai:1@2")

    assert isinstance(found, CivitaiVersion)
    assert found.kind is ModelType.LORA


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hf:owner/repo/a.safetensors", HuggingFaceFile("owner/repo", "a.safetensors")),
        (
            "huggingface:owner/repo/sub/a b.gguf@v1.0",
            HuggingFaceFile("owner/repo", "sub/a b.gguf", "v1.0"),
        ),
        (
            "owner/repo/a.safetensors@refs/pr/1",
            HuggingFaceFile("owner/repo", "a.safetensors", "refs/pr/1"),
        ),
        (
            "https://huggingface.co/owner/repo/resolve/main/sub/a%20b.safetensors?download=true",
            HuggingFaceFile("owner/repo", "sub/a b.safetensors"),
        ),
        (
            "https://huggingface.co/owner/repo/blob/refs%2Fpr%2F1/a.safetensors",
            HuggingFaceFile("owner/repo", "a.safetensors", "refs/pr/1"),
        ),
        ("hf.co/owner/repo/raw/abc/a.pt", HuggingFaceFile("owner/repo", "a.pt", "abc")),
        ("hf:o/r/a@b.safetensors", HuggingFaceFile("o/r", "a@b.safetensors")),
    ],
)
def test_files_on_hugging_face(text: str, wanted: HuggingFaceFile) -> None:
    found = parse_reference(text)

    assert found == wanted
    assert parse_reference(str(found)) == found


def test_any_other_https_address_is_a_file() -> None:
    found = parse_reference("https://example.org/a/b.safetensors?sig=1#part")

    assert found == DirectUrl("https://example.org/a/b.safetensors?sig=1")


def test_a_host_that_only_looks_like_civitai_is_not_civitai() -> None:
    found = parse_reference("https://civitai.com.evil.example/models/1")

    assert isinstance(found, DirectUrl)


def test_a_signed_address_is_never_shown_with_its_signature() -> None:
    found = parse_reference("https://example.org/b.bin?X-Amz-Signature=deadbeefdeadbeef&x=1")

    assert "deadbeef" not in str(found)
    assert "deadbeef" not in repr(found)


def test_a_token_in_a_civitai_address_is_dropped_at_once() -> None:
    for path in ("models/1?modelVersionId=2&", "api/download/models/2?", "images/3?"):
        found = parse_reference(f"https://civitai.com/{path}token=s3cr3tvalue")
        assert "s3cr3tvalue" not in repr(found) + str(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no model is named"),
        ("  ", "no model is named"),
        ('""', "no model is named"),
        ("a\nb", "line breaks"),
        ("a\0b", "line breaks"),
        ("x" * 5000, "too many"),
        ("<lora>", "is written <lora:name:weight>"),
        ("<lora::1>", "is written <lora:name:weight>"),
        ("<lora:a:strong>", "'strong' is no weight"),
        ("<lora:a:nan>", "'nan' is no weight"),
        ("<lora:a:1e9>", "no weight"),
        ("<clip:a:1>", "names no model"),
        ("embedding:", "is written embedding:name"),
        ("ftp://example.org/a", "ftp:// is not fetched"),
        ("file:///etc/passwd", "file:// is not fetched"),
        ("http://example.org/a.bin", "https:// only"),
        ("https:///a.bin", "no host"),
        ("https://user:pass@example.org/a.bin", "must not carry a user or password"),
        ("https://[::1/a.bin", "cannot be read"),
        ("https://example.org:99999999/a.bin", "cannot be read"),
        ("https://civitai.com/user/somebody", "is no model, version or picture"),
        ("https://civitai.com/posts/3", "give the address of one of them"),
        ("https://civitai.com/models/99999999999", "no id of Civitai"),
        ("https://civitai.com/models/1?modelVersionId=x", "no id of Civitai"),
        ("https://civitai.com/models/0", "no id of Civitai"),
        ("https://civitai.com/models/1?" + "a=1&" * 200, "too many parameters"),
        ("urn:air:sdxl:lora:civitai:x@2", "no id of Civitai"),
        ("urn:air:sdxl:lora:huggingface:a/b@main", "cannot be fetched"),
        ("urn:air", "an AIR is written"),
        ("civitai:1_0@2", "no id of Civitai"),
        ("https://huggingface.co/owner/repo", "is no file"),
        ("https://huggingface.co/datasets/o/r/resolve/main/x", "is no file"),
        ("hf:owner/repo", "is written hf:owner/repo/file@revision"),
        ("hf:owner/repo/../../x.bin", "no path of a file"),
        ("hf:owner/repo/a.bin@../x", "a revision is"),
        ("https://huggingface.co/o/r/resolve/main/%2e%2e/%2e%2e/x", "no path of a file"),
        ("sha256:abc", "has 10 to 64 hex digits"),
        ("crc32:zzzzzzzz", "has 8 hex digits"),
    ],
)
def test_what_means_no_model_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_reference(text, field="loras.0.name")

    assert words in str(caught.value)
    assert str(caught.value).startswith("loras.0.name: ")
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)


PIECES = st.sampled_from(
    (
        *("urn:", "air:", "civitai:", "@", "+", ":", "/", "https://", "civitai.com", "hf:"),
        *("<lora:", "models/", "1", "2", "?modelVersionId=", "abcdef12", " [", "]", ">", ".."),
        *(".safetensors", "%2f", "#", "token=", "&", "0x", "embedding:", "huggingface.co/"),
        *("resolve/", "\\", '"', " "),
    )
)


@settings(max_examples=400)
@example("0" * 4000)
@example("civitai:" + "a.a." * 900)
@given(st.text(max_size=60) | st.lists(PIECES, max_size=12).map("".join))
def test_any_text_is_a_reference_that_reads_back_or_one_clear_error(text: str) -> None:
    try:
        found = parse_reference(text)
    except BadRequest as error:
        assert "\n" not in str(error)  # noqa: PT017  # no error is as good
        return
    if isinstance(found, DirectUrl):
        assert parse_reference(found.url) == found
    else:
        assert parse_reference(str(found)) == found


def test_long_hostile_texts_are_read_in_proportion() -> None:
    begin = time.process_time()

    for text in ("a:" * 2000, "civitai:" + "a.a." * 990, "a/" * 1990 + ".bin@", "1@" * 2000):
        try:
            parse_reference(text)
        except BadRequest:
            continue

    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("LoCon", ModelType.LORA),
        ("TextualInversion", ModelType.EMBEDDING),
        ("Text Encoder", ModelType.TEXT_ENCODER),
        ("text_encoders", None),
        ("Diffusion Model", ModelType.DIFFUSION_MODEL),
        ("Workflows", None),
        ("Training Data", None),
    ],
)
def test_civitais_words_for_types_are_understood(word: str, wanted: ModelType | None) -> None:
    assert type_of(word) is wanted
