"""Which files beside a model belong to it, and its preview."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from stablequeue.engines.base import Kind
from stablequeue.errors import UnreadableFile
from stablequeue.storage.atomic import appearing
from stablequeue.storage.sniffing import sniff

PREVIEWS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".jxl", ".mp4", ".webm")
_TEXTS = (
    ".json",
    ".civitai.info",
    ".api_info.json",
    ".metadata.json",
    ".cm-info.json",
    ".civitai.json",
    ".txt",
    ".description.txt",
    ".html",
    ".yaml",
)
_VAES = (".vae.safetensors", ".vae.pt", ".vae.ckpt")


def stem_of(model: Path) -> Path:
    """Return the path all sidecars of a model begin with."""
    return model.with_suffix("")


def find_preview(model: Path, present: Sequence[str] | None = None) -> Path | None:
    """Return the picture that belongs to a model: those of Forge's rules first."""
    folder = model.parent
    names = set(names_in(folder) if present is None else present)
    stem = stem_of(model).name
    for suffix in PREVIEWS:
        for name in (f"{stem}{suffix}", f"{stem}.preview{suffix}"):
            if name in names:
                return folder / name
    return None


def sidecar_files(model: Path, present: Sequence[str] | None = None) -> list[Path]:
    """Return the files that belong to a model, for renaming and deleting it; sorted.

    Not those of another model whose name only begins alike: `a.json` beside `a.safetensors` and
    `a.ckpt` belongs to both, and is kept while the other is there.
    """
    folder = model.parent
    names = list(names_in(folder) if present is None else present)
    stem = stem_of(model).name
    others = {one for one in names if one != model.name}
    if any(Path(one).stem == stem and _is_model(one) for one in others):
        return []
    endings = {*_TEXTS, *_VAES, *PREVIEWS, *(f".preview{one}" for one in PREVIEWS)}
    example = re.compile(rf"{re.escape(stem)}\.example\.\d+\.\w+")
    return sorted(
        folder / one
        for one in others
        if (one.startswith(stem) and one[len(stem) :] in endings) or example.fullmatch(one)
    )


def write_preview(model: Path, picture: bytes) -> Path:
    """Write a preview under the suffix of what it really is, and return where.

    A preview that is there under another suffix of ours (`name.preview.*`) is replaced, since Forge
    shows whichever it finds first; a picture somebody chose (`name.png`) stays, and wins.

    Raises:
        UnreadableFile: It is neither picture nor video.
        OSError: It cannot be written.
    """
    found = sniff(picture)
    suffix = found.suffix if found.kind in {Kind.IMAGE, Kind.VIDEO} else ""
    if suffix not in PREVIEWS:
        raise UnreadableFile(f"the preview for {model.name} is neither picture nor video")
    target = beside(model, f".preview{suffix}")
    with appearing(target) as temporary:
        temporary.write_bytes(picture)
    for other in PREVIEWS:
        if other != suffix:
            beside(model, f".preview{other}").unlink(missing_ok=True)
    return target


def beside(model: Path, suffix: str) -> Path:
    """Return the path of one sidecar, e.g. of suffix `.civitai.info`."""
    stem = stem_of(model)
    return stem.with_name(stem.name + suffix)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _is_model(name: str) -> bool:
    return Path(name).suffix.casefold() in {".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf"}
