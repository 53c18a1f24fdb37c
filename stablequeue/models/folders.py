"""Where model files are: the folders of Forge and ComfyUI, and what a person adds.

A *root* is one folder and the type of the models in it. Any number of roots may be of one type, in
an order: the first is where a new file goes. Sources: Forge's and A1111's `modules/paths`,
ComfyUI's `folder_paths.py` and `extra_model_paths.yaml` (2025-10).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from stablequeue.errors import BadRequest, SettingsError
from stablequeue.models.kinds import ModelType

EXTRA_PATHS = "extra_model_paths.yaml"

LORA_PATH, CHECKPOINT_PATH = "LORA_PATH", "CHECKPOINT_PATH"
"""Environment variables the user's other tools set: one folder, or several as in PATH."""

FORGE_FOLDERS: Mapping[ModelType, tuple[str, ...]] = {
    # Below the data folder; the first of each is where a new file goes.
    ModelType.CHECKPOINT: ("models/Stable-diffusion",),
    ModelType.LORA: ("models/Lora", "models/LyCORIS"),
    ModelType.EMBEDDING: ("embeddings",),
    ModelType.VAE: ("models/VAE",),
    ModelType.TEXT_ENCODER: ("models/text_encoder",),
    ModelType.CONTROLNET: ("models/ControlNet", "extensions/sd-webui-controlnet/models"),
    ModelType.UPSCALER: (
        "models/ESRGAN",
        "models/RealESRGAN",
        "models/SwinIR",
        "models/DAT",
        "models/LDSR",
    ),
    ModelType.HYPERNETWORK: ("models/hypernetworks",),
}

COMFYUI_FOLDERS: Mapping[ModelType, tuple[str, ...]] = {
    # Below the folder `models`; the second ones are old names, still read.
    ModelType.CHECKPOINT: ("checkpoints",),
    ModelType.DIFFUSION_MODEL: ("diffusion_models", "unet"),
    ModelType.LORA: ("loras",),
    ModelType.EMBEDDING: ("embeddings",),
    ModelType.VAE: ("vae", "vae_approx"),
    ModelType.TEXT_ENCODER: ("text_encoders", "clip"),
    ModelType.CONTROLNET: ("controlnet", "t2i_adapter"),
    ModelType.UPSCALER: ("upscale_models",),
    ModelType.HYPERNETWORK: ("hypernetworks",),
    ModelType.CLIP_VISION: ("clip_vision",),
}
_TYPE_OF_FOLDER = {folder: kind for kind, folders in COMFYUI_FOLDERS.items() for folder in folders}
_LARGEST_YAML = 1_000_000


@dataclass(frozen=True, slots=True)
class Root:
    """One folder of models.

    Attributes:
        path: Absolute, as it was given: links in it are followed, but it is shown as known.
        kind: What is in it.
        origin: Where it comes from, for people, e.g. `environment LORA_PATH`.
    """

    path: Path
    kind: ModelType
    origin: str


def type_of_folder(folder: str) -> ModelType | None:
    """Return what ComfyUI keeps in one of its model folders; None: nothing that we keep."""
    parts = folder.replace("\\", "/").strip("/").casefold().removeprefix("models/")
    return _TYPE_OF_FOLDER.get(parts.partition("/")[0])


def forge_roots(data: Path) -> list[Root]:
    """Return the folders of a Forge or A1111 installation that exist."""
    return _existing(
        Root(data.absolute() / folder, kind, f"Forge in {data}")
        for kind, folders in FORGE_FOLDERS.items()
        for folder in folders
    )


def comfyui_roots(base: Path) -> list[Root]:
    """Return the folders of a ComfyUI installation that exist, and those its YAML file adds.

    Raises:
        SettingsError: Its `extra_model_paths.yaml` cannot be read.
    """
    own = [
        Root(base.absolute() / "models" / folder, kind, f"ComfyUI in {base}")
        for kind, folders in COMFYUI_FOLDERS.items()
        for folder in folders
    ]
    extra = base / EXTRA_PATHS
    found = extra_model_paths(extra) if extra.is_file() else []
    return _existing([*own, *found])


def recognised_roots(base: Path) -> list[Root]:
    """Return the folders of whatever installation is at `base`; none: it is neither.

    Also a bare `models` folder of ComfyUI or of Forge may be given.

    Raises:
        SettingsError: A YAML file there cannot be read.
    """
    found: list[Root] = []
    for place in (base, base.absolute().parent):
        if place != base and base.name.casefold() != "models":
            break
        found += forge_roots(place) + comfyui_roots(place)
    return unique(found)


def extra_model_paths(file: Path) -> list[Root]:
    """Read ComfyUI's `extra_model_paths.yaml`; a `base_path` may be relative to the file.

    Sections marked `is_default` come first. Folders of types we do not keep (configs, ...) and
    such that do not exist are left out.

    Raises:
        SettingsError: It cannot be read, or is no such file.
    """
    sections: list[tuple[bool, list[Root]]] = []
    for label, section in _sections(file).items():
        base = _base(file, section)
        roots = [
            Root(_within(base, line), kind, f"{file.name}, {label}")
            for name, value in section.items()
            if (kind := _TYPE_OF_FOLDER.get(str(name))) is not None
            for line in _lines(value)
        ]
        sections.append((bool(section.get("is_default", False)), roots))
    sections.sort(key=lambda one: not one[0])
    return _existing(root for _, roots in sections for root in roots)


def environment_roots(environment: Mapping[str, str] | None = None) -> list[Root]:
    """Return the folders that LORA_PATH and CHECKPOINT_PATH name, if they exist."""
    environment = os.environ if environment is None else environment
    named = {LORA_PATH: ModelType.LORA, CHECKPOINT_PATH: ModelType.CHECKPOINT}
    return _existing(
        Root(Path(folder).expanduser().absolute(), kind, f"environment {name}")
        for name, kind in named.items()
        for folder in environment.get(name, "").split(os.pathsep)
        if folder.strip()
    )


def gather_roots(
    *,
    explicit: Mapping[ModelType, Sequence[Path]] | None = None,
    installations: Sequence[Path] = (),
    extra_files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> list[Root]:
    """Return all roots, each folder once: what was given first wins.

    Args:
        explicit: Folders by type, as the settings name them.
        installations: Folders of Forge, A1111 or ComfyUI.
        extra_files: More files like ComfyUI's `extra_model_paths.yaml`.
        environment: None: that of the process.

    Raises:
        SettingsError: A YAML file cannot be read.
    """
    found = [
        Root(folder.expanduser().absolute(), kind, "settings")
        for kind, folders in (explicit or {}).items()
        for folder in folders
    ]
    found += environment_roots(environment)
    for base in installations:
        found += recognised_roots(base.expanduser())
    for file in extra_files:
        found += extra_model_paths(file.expanduser())
    return unique(_existing(found))


def unique(roots: Iterable[Root]) -> list[Root]:
    """Return each folder once for each type, the first of those that are the same on the disk.

    A folder inside another of the same type is left out too: its files are found there.
    """
    kept: list[tuple[Path, Root]] = []
    for root in roots:
        real = Path(os.path.realpath(root.path))
        inside = any(
            one.kind is root.kind and (real == other or real.is_relative_to(other))
            for other, one in kept
        )
        if not inside:
            kept = [
                (other, one)
                for other, one in kept
                if one.kind is not root.kind or not other.is_relative_to(real)
            ]
            kept.append((real, root))
    return [root for _, root in kept]


def target_in(root: Root, relative: str) -> Path:
    """Return where a file with this relative name goes, checked to stay in the root.

    Args:
        root: Where to put it.
        relative: From outside, with slashes or backslashes.

    Raises:
        BadRequest: The name would leave the folder, links in it included.
    """
    parts = relative.replace("\\", "/").split("/")
    bad = not relative.isprintable() or any(
        part in {"", ".", ".."} or ":" in part or part != part.strip() for part in parts
    )
    target = root.path.joinpath(*parts) if not bad else root.path
    real = Path(os.path.realpath(target))
    if bad or not real.is_relative_to(os.path.realpath(root.path)):
        raise BadRequest("name", f"{relative[:200]!r} is no name of a file in {root.path}")
    return target


def _existing(roots: Iterable[Root]) -> list[Root]:
    return [root for root in roots if _is_folder(root.path)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a link to itself, a NUL
        return False


def _sections(file: Path) -> dict[str, dict[str, Any]]:
    try:
        if file.stat().st_size > _LARGEST_YAML:
            raise SettingsError(f"{file} is too large to be a list of folders")
        data: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{file}{line}: not valid YAML") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{file}: expected sections, each with base_path and folders")
    return {
        str(label): cast("dict[str, Any]", section)
        for label, section in cast("dict[Any, Any]", data).items()
        if isinstance(section, dict)
    }


def _base(file: Path, section: Mapping[str, Any]) -> Path:
    given = section.get("base_path")
    here = file.absolute().parent
    if not isinstance(given, str) or not given.strip():
        return here
    return _within(here, os.path.expandvars(given.strip()))


def _within(base: Path, given: str) -> Path:
    try:
        return Path(os.path.normpath(base / Path(given).expanduser()))
    except RuntimeError:  # the home of nobody
        return base / given


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from filter(None, (line.strip() for line in value.split("\n")))
