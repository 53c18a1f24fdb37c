"""What other tools keep beside a model file: read all of it, write two files, lose nothing.

`name` is the model's path without its last suffix.

=========================  =========================================  ======
beside it                  of                                         we
=========================  =========================================  ======
`name.json`                A1111's and Forge's card editor, others    merge
`name.civitai.info`        Civitai Helper: a version as the API says  merge
`name.preview.<ext>`       everybody                                  write
`name.<image ext>`         A1111's "replace preview"                  read
`name.txt`,                a description                              read
`name.description.txt`
`name.api_info.json`       sd-civitai-browser-plus: the whole model   read
`name.metadata.json`       ComfyUI-Lora-Manager                       read
`name.cm-info.json`        StabilityMatrix                            read
=========================  =========================================  ======

Merging means: a key that is there stays, unless we write exactly that key; a text a person wrote is
never replaced; a file that cannot be read is left as it is. Sources: Forge (2025), Civitai Helper
(2026-01), sd-civitai-browser-plus (2025-07), Lora-Manager (2026-08), StabilityMatrix (2026-07).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from stablequeue.errors import UnreadableFile
from stablequeue.models.beside import beside, find_preview, names_in
from stablequeue.storage.atomic import appearing

JSON = dict[str, Any]

LARGEST = 16 * 1024 * 1024
"""Bytes of a sidecar file that is read."""

_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
_FORGE_VERSIONS = {
    "sd 1": "SD1",
    "sd 2": "SD2",
    "sdxl": "SDXL",
    "pony": "SDXL",
    "illustrious": "SDXL",
    "noobai": "SDXL",
    "flux.1": "Flux",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """What is told about a model beside its file. Empty where nothing is.

    Attributes:
        base_model: Civitai's word.
        base_model_source: Which file says it.
        trained_words: As Civitai has them, without LoRA tags.
        preferred_weight: 0: none.
        preview: The picture shown for the model, if there is one.
        problems: Files that could not be read, one line each.
    """

    name: str = ""
    description: str = ""
    notes: str = ""
    base_model: str = ""
    base_model_source: str = ""
    activation_text: str = ""
    negative_text: str = ""
    preferred_weight: float = 0.0
    trained_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    model_id: int = 0
    version_id: int = 0
    sha256: str = ""
    autov3: str = ""
    preview: Path | None = None
    problems: tuple[str, ...] = field(default=())


def read_sidecars(model: Path, present: Sequence[str] | None = None) -> Sidecars:
    """Read everything told beside a model file; what is broken is noted, never an error.

    Args:
        model: The model file.
        present: Names in its folder, if they are known already.
    """
    reading = _Reading(model, present)
    forge, helper, browser, manager, matrix = (
        reading.json(suffix)
        for suffix in (
            ".json",
            ".civitai.info",
            ".api_info.json",
            ".metadata.json",
            ".cm-info.json",
        )
    )
    civitai = _object(manager.get("civitai"))
    parent = _object(helper.get("model")) or _object(civitai.get("model"))
    base_models = (
        ("name.civitai.info", _text(helper.get("baseModel"))),
        ("name.metadata.json", _text(manager.get("base_model"))),
        ("name.cm-info.json", _text(matrix.get("BaseModel"))),
        ("name.json", _forge_version(forge)),
    )
    source, base_model = next((one for one in base_models if one[1]), ("", ""))
    hashes = _object(matrix.get("Hashes"))
    words = (
        _texts(helper.get("trainedWords"))
        or _texts(manager.get("trainedWords"))
        or _texts(civitai.get("trainedWords"))
        or _texts(matrix.get("TrainedWords"))
    )
    return Sidecars(
        name=_text(parent.get("name"))
        or _text(manager.get("model_name"))
        or _text(matrix.get("ModelName"))
        or _text(browser.get("name")),
        description=_text(forge.get("description"))
        or reading.text(".txt")
        or reading.text(".description.txt")
        or _text(parent.get("description"))
        or _text(browser.get("description"))
        or _text(manager.get("modelDescription"))
        or _text(matrix.get("ModelDescription")),
        notes=_text(forge.get("notes")) or _text(manager.get("notes")),
        base_model=base_model,
        base_model_source=source,
        activation_text=_text(forge.get("activation text")),
        negative_text=_text(forge.get("negative text")),
        preferred_weight=_number(forge.get("preferred weight")),
        trained_words=tuple(filter(None, (_TAG.sub("", word).strip() for word in words))),
        tags=tuple(_texts(manager.get("tags")) or _texts(parent.get("tags"))),
        model_id=_id(helper, "modelId")
        or _id(forge, "modelId")
        or _id(matrix, "ModelId")
        or _id(civitai, "modelId"),
        version_id=_id(helper, "id")
        or _id(forge, "modelVersionId")
        or _id(matrix, "VersionId")
        or _id(civitai, "id"),
        sha256=_digits(manager.get("sha256"), 64)
        or _digits(forge.get("sha256"), 64)
        or _digits(hashes.get("SHA256"), 64),
        autov3=_digits(manager.get("autov3"), 12),
        preview=find_preview(model, reading.present),
        problems=tuple(reading.problems),
    )


def merge_user_metadata(model: Path, values: Mapping[str, Any]) -> JSON:
    """Fill in `name.json`; what a person wrote there stays.

    Args:
        model: The model file.
        values: By Forge's keys (`activation text`, `sd version`, ...); empty ones are left out.

    Returns:
        What the file holds now.

    Raises:
        UnreadableFile: There is a file, and it is no JSON object; it is left as it is.
        OSError: It cannot be written.
    """
    path = beside(model, ".json")
    before = _load(path)
    after = dict(before)
    for key, value in values.items():
        if after.get(key) in (None, "", 0, [], "Unknown") and value not in (None, "", 0, []):
            after[key] = value
    return _save(path, before, after)


def merge_civitai_info(model: Path, version: Mapping[str, Any]) -> JSON:
    """Bring `name.civitai.info` up to date with a version as Civitai's API tells it.

    What the API says replaces what it said before; keys it does not have stay, those of other
    tools (`extensions`) and those of the model (`model.description`, `model.tags`) among them.

    Raises:
        UnreadableFile: There is a file, and it is no JSON object; it is left as it is.
        OSError: It cannot be written.
    """
    path = beside(model, ".civitai.info")
    before = _load(path)
    return _save(path, before, _merged(before, version))


def user_metadata_of(version: Mapping[str, Any], *, sha256: str = "") -> JSON:
    """Return what `name.json` says of a version, by Forge's keys.

    Words are joined with a comma; an entry that holds a comma is a prompt of its own, and then
    entries are kept apart as Civitai Helper does.
    """
    words = [_TAG.sub("", word).strip(" ,") for word in _texts(version.get("trainedWords"))]
    words = list(dict.fromkeys(filter(None, words)))
    between = " || " if any("," in word for word in words) else ", "
    base_model = _text(version.get("baseModel")).casefold()
    known = (word for start, word in _FORGE_VERSIONS.items() if base_model.startswith(start))
    described = "" if base_model.startswith("pony v7") else next(known, "")
    return {
        "activation text": between.join(words),
        "sd version": described,
        "modelId": _id(version, "modelId"),
        "modelVersionId": _id(version, "id"),
        "sha256": sha256.upper(),
    }


class _Reading:
    """Reads sidecars of one model, and notes what it could not."""

    def __init__(self, model: Path, present: Sequence[str] | None) -> None:
        self._model = model
        self.present = list(names_in(model.parent) if present is None else present)
        self._names = set(self.present)
        self.problems: list[str] = []

    def json(self, suffix: str) -> JSON:
        path = beside(self._model, suffix)
        if path.name not in self._names:
            return {}
        try:
            return _load(path)
        except UnreadableFile as error:
            self.problems.append(str(error))
            return {}

    def text(self, suffix: str) -> str:
        path = beside(self._model, suffix)
        if path.name not in self._names:
            return ""
        try:
            return _bytes(path).decode("utf-8", "replace").strip()
        except UnreadableFile as error:
            self.problems.append(str(error))
            return ""


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise UnreadableFile(f"{path.name} is too large to be read")
    return data


def _load(path: Path) -> JSON:
    """Read a JSON object; {} where there is no file.

    Raises:
        UnreadableFile: There is a file, and it is no JSON object.
    """
    if not path.exists():
        return {}
    try:
        data: object = json.loads(_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UnreadableFile(f"{path.name} is no JSON object; it is left as it is")
    return cast("JSON", data)


def _save(path: Path, before: JSON, after: JSON) -> JSON:
    if after != before or not path.exists():
        # As Forge writes it.
        text = json.dumps(after, indent=4, ensure_ascii=False)
        with appearing(path) as temporary:
            temporary.write_bytes(text.encode("utf-8", "surrogatepass"))
    return after


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> JSON:
    after = dict(below)
    for key, value in above.items():
        old = after.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            after[key] = _merged(cast("JSON", old), cast("JSON", value))
        elif value is not None or key not in after:
            after[key] = value
    return after


def _forge_version(forge: Mapping[str, Any]) -> str:
    words = {"SD1": "SD 1.5", "SD2": "SD 2", "SDXL": "SDXL", "Flux": "Flux.1"}
    return words.get(_text(forge.get("sd version")), "")


def _object(value: Any) -> JSON:
    return cast("JSON", value) if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    return [one for one in cast("list[Any]", value) if isinstance(one, str) and one.strip()]


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return number if -100 <= number <= 100 else 0.0  # noqa: PLR2004


def _id(data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value):
        return int(value)
    return value if type(value) is int and 0 < value < 2**31 else 0


def _digits(value: Any, length: int) -> str:
    text = _text(value).lower()
    return text if re.fullmatch(f"[0-9a-f]{{{length}}}", text) else ""
