"""The recordings of a real Forge, and how its answers are compared with the sandbox's.

Everything is compared exactly, but for what two servers cannot share: addresses of files, random
seeds, times, the pixels. `Differences` collects what differs, so that a failing test shows all.
"""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any, TypeGuard

import httpx
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from stablequeue.sandbox import ModelFile, ModelShelf
from stablequeue.sandbox.models import CHECKPOINTS, LORAS

FOLDER = Path(__file__).parents[2] / "recordings" / "forge_replay"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

HASHES = {
    "random-sd15.safetensors": "01cfe36ecead042891d83d7dd27fb18a005b9d496e98830724bfb13a5e6938d0",
    "sub dir/other-sd15.safetensors": (
        "b1ee8ef8810a67f498142ae9f9587992884b3f5e6c4c472ca8700db69ead0b80"
    ),
    "tiny-lora.safetensors": "8a7dd4ef3259".ljust(64, "0"),
}
_OURS = {"stablequeue_sandbox"}


class RecordedFile(ModelFile):
    """A file with the hash it had on the recorded server."""

    __slots__ = ()

    @property
    def sha256(self) -> str:
        return HASHES[self.name]


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Say whether JSON is an object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Say whether JSON is an array."""
    return isinstance(value, list)


def recorded_shelf(load_seconds: float = 0.0) -> ModelShelf:
    """Return the recorded server's models."""
    names = ("random-sd15.safetensors", "sub dir/other-sd15.safetensors")
    checkpoints = [
        RecordedFile(kind=CHECKPOINTS, name=name, load_seconds=load_seconds) for name in names
    ]
    metadata = {
        "ss_output_name": "tinyalias",
        "ss_base_model_version": "sd_v1-5",
        "ss_network_module": "networks.lora",
    }
    lora = RecordedFile(kind=LORAS, name="tiny-lora.safetensors", metadata=metadata)
    return ModelShelf(files=[*checkpoints, lora])


def load(name: str) -> Any:
    """Return a recording."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def png(
    size: tuple[int, int] = (64, 64), *, text: str = "", mode: str = "RGB", blank: bool = False
) -> str:
    """Return a PNG as base64, with `text` in its `parameters` chunk."""
    picture = Image.new(mode, size, "black")
    if not blank:
        picture.paste(Image.linear_gradient("L").resize(size).convert(mode))
    chunks = PngInfo()
    if text:
        chunks.add_text("parameters", text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunks)
    return base64.b64encode(buffer.getvalue()).decode()


def with_pictures(body: Any, text: str = "") -> Any:
    """Return a recorded request with whole pictures where the recording was cut."""
    if is_object(body):
        return {key: with_pictures(value, text) for key, value in body.items()}
    if is_array(body):
        return [with_pictures(value, text) for value in body]
    if isinstance(body, str) and "<cut, " in body:
        whole = png((128, 128) if text else (64, 64), text=text)
        return f"data:image/png;base64,{whole}" if body.startswith("data:") else whole
    return body


def decoded(image: str) -> Image.Image:
    """Return the picture of an answer."""
    assert not image.startswith("data:")
    picture = Image.open(io.BytesIO(base64.b64decode(image, validate=True)))
    picture.load()
    return picture


def told_text(picture: Image.Image) -> str:
    """Return the infotext in a picture's chunk or EXIF."""
    if "parameters" in picture.info:
        return str(picture.info["parameters"])
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment.startswith(b"UNICODE\0")
    return comment[8:].decode("utf-16-be")


class Differences:
    """What differs between a recorded answer and ours; `folder` is our server's data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.found: list[str] = []

    def note(self, where: str, recorded: Any, ours: Any) -> None:
        self.found.append(f"{where}: recorded {recorded!r:.300}, ours {ours!r:.300}")

    def same(self, recorded: Any, ours: Any, where: str = "") -> None:
        """Compare exactly, key order of objects included; our own extra keys are allowed."""
        ours = self._told(ours)
        if is_object(recorded) and is_object(ours):
            theirs = [key for key in ours if key not in _OURS or key in recorded]
            if [*recorded] != theirs:
                self.note(f"{where} keys", [*recorded], theirs)
            for key in recorded.keys() & ours.keys():
                self.same(recorded[key], ours[key], f"{where}.{key}")
        elif is_array(recorded) and is_array(ours):
            if len(recorded) != len(ours):
                self.note(f"{where} length", len(recorded), len(ours))
            for index, (one, other) in enumerate(zip(recorded, ours, strict=False)):
                self.same(one, other, f"{where}[{index}]")
        elif isinstance(recorded, str) and "<cut, " in recorded:
            if not isinstance(ours, str):
                self.note(where, recorded, ours)
        elif type(recorded) is not type(ours) or recorded != ours:
            self.note(where, recorded, ours)

    def shape(self, recorded: Any, ours: Any, where: str = "") -> None:
        """Compare key sets and types only; a list's elements with the recorded first one."""
        if is_object(recorded) and is_object(ours):
            if recorded.keys() != ours.keys() - (_OURS - recorded.keys()):
                self.note(f"{where} keys", sorted(recorded), sorted(ours))
            for key in recorded.keys() & ours.keys():
                self.shape(recorded[key], ours[key], f"{where}.{key}")
        elif is_array(recorded) and is_array(ours):
            for index, one in enumerate(ours if recorded else []):
                self.shape(recorded[0], one, f"{where}[{index}]")
        elif type(recorded) is not type(ours):
            self.note(f"{where} type", recorded, ours)

    def _told(self, text: Any) -> Any:
        if isinstance(text, str):
            return text.replace(self._folder, "/forge")
        return text

    def generation(
        self, body: dict[str, Any], recorded: dict[str, Any], ours: dict[str, Any]
    ) -> None:
        """Compare the answer of a generation: parameters and info exactly, but random numbers."""
        if [*recorded] != [*ours]:
            self.note("keys", [*recorded], [*ours])
        if len(recorded["images"]) != len(ours["images"]):
            self.note("images", len(recorded["images"]), len(ours["images"]))
        self.same(recorded["parameters"], ours["parameters"], "parameters")
        self.same(masked_info(recorded["info"], body), masked_info(ours["info"], body), "info")

    def pictures(
        self, body: dict[str, Any], recorded: list[dict[str, Any]], images: list[str]
    ) -> None:
        """Compare format, size, mode and infotext of pictures."""
        for index, (one, image) in enumerate(zip(recorded, images, strict=True)):
            picture = decoded(image)
            told = [picture.format, [*picture.size], picture.mode]
            self.same([one["format"], one["size"], one["mode"]], told, f"picture {index}")
            if one["format"] == "PNG":
                text = masked(one["info"]["parameters"], body)
                self.same(text, masked(told_text(picture), body), f"text of picture {index}")
                assert "stablequeue_sandbox" in picture.info
            else:
                assert told_text(picture)


def masked(text: str, body: dict[str, Any]) -> str:
    """Return an infotext without its seed, if that was random."""
    if body.get("seed", -1) != -1:
        return text
    return re.sub(r"Seed: \d+", "Seed: #", text)


def masked_info(info: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a generation's `info` without random numbers and times."""
    told: dict[str, Any] = json.loads(info)
    told["job_timestamp"] = re.sub(r"^\d{14}$", "#", told["job_timestamp"])
    random_keys = [] if body.get("subseed", -1) != -1 else ["subseed", "all_subseeds"]
    if body.get("seed", -1) == -1:
        random_keys += ["seed", "all_seeds"]
    for key in random_keys:
        value = told[key]
        steps = [n - value[0] for n in value] if is_array(value) else type(value).__name__
        told[key] = steps
    told["infotexts"] = [masked(text, body) for text in told["infotexts"]]
    return told


def files_below(folder: Path) -> set[str]:
    """Return the pictures a server has written, as told by the recordings."""
    found = (path for path in (folder / "outputs").rglob("*") if path.is_file())
    return {f"/forge/{path.relative_to(folder).as_posix()}" for path in found}


def pattern_of(name: str) -> str:
    """Return a file name without date, running number and random seed."""
    name = re.sub(r"\d{4}-\d\d-\d\d", "DATE", name)
    name = re.sub(r"/\d{5}-", "/NUMBER-", name)
    name = re.sub(r"grid-\d{4}", "grid-NUMBER", name)
    return re.sub(r"-\d{6,}\.", "-SEED.", name)


def content_type(response: httpx.Response) -> str:
    """Return the type of an answer."""
    return response.headers.get("content-type", "")
