"""What a finished prompt made, and how it ended: as recorded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.base import Kind
from stablequeue.engines.comfyui.answers import Ended, NonsenseError, parse_history
from stablequeue.engines.comfyui.outputs import (
    actual_mime,
    failure,
    file_kind,
    keeps_promise,
    read_outputs,
)
from stablequeue.errors import Interrupted, JobFailed, OutOfMemory
from tests.engines.comfyui.recordings import history_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def ended(note: str) -> Ended:
    prompt_id, history = history_of(note)
    found = parse_history(history, prompt_id)
    assert found is not None
    return found


def with_outputs(outputs: dict[str, Any]) -> Ended:
    return Ended(number=0, graph={}, outputs=outputs, status="success", messages=())


@pytest.mark.parametrize(
    ("note", "kind", "mime", "animated"),
    [
        ("SaveAnimatedWEBP", Kind.IMAGE, "image/webp", True),
        ("SaveAnimatedPNG", Kind.IMAGE, "image/png", True),
        ("SaveWEBM", Kind.VIDEO, "video/webm", True),
        ("SaveVideo", Kind.VIDEO, "video/mp4", True),
        ("PreviewImage only", Kind.IMAGE, "image/png", False),
    ],
)
def test_every_recorded_output_is_found_under_whatever_key(
    note: str, kind: Kind, mime: str, animated: bool
) -> None:
    made = read_outputs(ended(note))
    assert {(f.kind, f.mime, f.animated) for f in made.files} == {(kind, mime, animated)}
    assert not made.warnings
    assert failure("gpu", ended(note)) is None


def test_text_is_an_output_too() -> None:
    made = read_outputs(ended("PreviewAny (text)"))
    assert not made.files
    assert len(made.texts) == 1


def test_a_latent_is_left_with_a_warning() -> None:
    made = read_outputs(ended("SaveLatent"))
    assert not made.files
    assert "left on the server" in made.warnings[0]


def test_temporary_pictures_count_only_if_nothing_was_saved() -> None:
    assert {f.type for f in read_outputs(ended("SaveImage+PreviewImage")).files} == {"output"}
    assert {f.type for f in read_outputs(ended("PreviewImage only")).files} == {"temp"}


def test_the_same_file_is_listed_once() -> None:
    file = {"filename": "a.png", "subfolder": "x", "type": "output"}
    made = read_outputs(with_outputs({"1": {"images": [file, file]}, "2": {"gifs": [file]}}))
    assert len(made.files) == 1


def test_files_of_custom_nodes_are_found_under_their_keys() -> None:
    video = {
        "filename": "v_00001.mp4",
        "subfolder": "a\\b",
        "type": "output",
        "format": "video/h264-mp4",
    }
    (file,) = read_outputs(with_outputs({"1": {"gifs": [video]}})).files
    assert file.kind is Kind.VIDEO
    assert file.place["subfolder"] == "a\\b", "sent back verbatim"


def test_local_names_hold_nothing_of_the_servers_but_a_known_suffix() -> None:
    hostile = {"filename": "../../etc/pass wd\0.PNG", "subfolder": "C:\\", "type": "output"}
    (file,) = read_outputs(with_outputs({"1": {"images": [hostile]}})).files
    name = file.local_name(3)
    assert name.startswith("0003-")
    assert name.endswith(".png")
    assert not set(name) & set("/\\: \0")


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ("e-outside", "node 4 (SaveImage): Exception: **** ERROR: Saving image outside"),
        ("e-image", "node 1 (LoadImage)"),
        ("e-ckpt", "CheckpointLoaderSimple"),
        ("good then failing", "node"),
    ],
)
def test_a_failure_says_node_and_message_in_one_line(note: str, words: str) -> None:
    error = failure("gpu", ended(note))
    assert type(error) is JobFailed
    assert words in str(error)
    assert "\n" not in str(error)


def test_an_interrupt_is_told_from_a_failure_by_its_message() -> None:
    found = ended("id of the running prompt")
    assert found.status == "error"
    error = failure("gpu", found)
    assert isinstance(error, Interrupted)
    assert error.retryable


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.OutOfMemoryError", "Allocation on device"),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB"),
        ("RuntimeError", "MPS backend out of memory"),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_is_told_apart(kind: str, message: str) -> None:
    data = {"exception_type": kind, "exception_message": message, "node_id": "3", "node_type": "K"}
    failed = Ended(
        number=0, graph={}, outputs={}, status="error", messages=(("execution_error", data),)
    )
    assert isinstance(failure("gpu", failed), OutOfMemory)


def test_an_error_without_any_message_is_still_a_failure() -> None:
    failed = Ended(number=0, graph={}, outputs={}, status="error", messages=())
    assert type(failure("gpu", failed)) is JobFailed


def test_a_history_without_status_is_a_success() -> None:
    found = parse_history({"a": {"prompt": [], "outputs": {}}}, "a")
    assert found is not None
    assert failure("gpu", found) is None


@pytest.mark.parametrize(
    ("mime", "head", "kept"),
    [
        ("image/png", PNG, True),
        ("image/png", b"\xff\xd8\xff\xe0", True),  # a picture all the same
        ("image/png", b"<!doctype html>", False),
        ("image/webp", b"RIFF\0\0\0\0WEBPVP8 ", True),
        ("video/mp4", b"\0\0\0\x20ftypisom", True),
        ("video/mp4", PNG, False),
        ("audio/flac", b"fLaC", True),
        ("audio/mpeg", b"", False),
        ("text/plain", b"anything", True),
    ],
)
def test_a_file_must_be_what_its_name_promises(mime: str, head: bytes, kept: bool) -> None:
    assert keeps_promise(mime, head) is kept


def test_the_first_bytes_correct_the_type() -> None:
    assert actual_mime("image/png", b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert actual_mime("video/mp4", b"\0\0\0\x20ftypqt  ") == "video/mp4"
    assert actual_mime("text/plain", b"hello") == "text/plain"


@pytest.mark.parametrize(("name", "known"), [("a.latent", False), ("a", False), ("A.MP4", True)])
def test_kinds_are_told_by_suffix(name: str, known: bool) -> None:
    assert (file_kind(name) is not None) is known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["a", "prompt", "outputs", "status", "messages", "images", "text"])
            | st.sampled_from(["filename", "subfolder", "type", "execution_error", "node_id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_history_is_read_or_refused(data: Any) -> None:
    try:
        found = parse_history({"a": data}, "a")
    except NonsenseError:
        return
    if found is not None:
        made = read_outputs(found)
        assert all(file.local_name(0) for file in made.files)
        error = failure("gpu", found)
        assert error is None or "\n" not in str(error)
        assert found.seconds >= 0
