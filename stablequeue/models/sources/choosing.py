"""Which file of a version is the model.

Explicit file or hash > wishes for type, format, precision and size > the primary one > the first
weight file, safetensors before all others. Training data, configurations, archives and negative
embeddings are never the model; what a scan calls dangerous is never taken; pickles only when the
user said so, since loading one runs what it says.
"""

from dataclasses import dataclass

from stablequeue.errors import NoSuitableFile
from stablequeue.models.sources.civitai_answers import EMPTY_SHA256, CivitaiFile, CivitaiVersion

_SOURCE = "civitai"
_WEIGHTS = frozenset({"model", "pruned model", "diffusion model", "unet"})
_NEVER = frozenset({"training data", "config", "archive", "negative", "workflow"})
_BY_MODEL = {
    # What else is "the model" on the page of a model of such a type.
    "vae": "vae",
    "controlnet": "controlnet",
    "upscaler": "upscaler",
    "textencoder": "text encoder",
    "clip": "text encoder",
    "clipvision": "clipvision",
}
_PICKLES = (".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")
_TAKEN_UNASKED = frozenset({"safetensor", "gguf", "pickletensor"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which of several files is wanted; empty: no matter.

    Attributes:
        file_id: This very file.
        hash: The file with this hash, of whatever kind.
        type: As Civitai names it, e.g. `VAE` or `Pruned Model`.
        format: `SafeTensor`, `GGUF`, `PickleTensor`, ...
        fp: `fp16`, `fp32`, `bf16`, `fp8`, ...
        size: `full` or `pruned`.
        quant: Of a GGUF file, e.g. `Q4_K_M`.
        pickle: Pickles may be taken.
    """

    file_id: int = 0
    hash: str = ""
    type: str = ""
    format: str = ""
    fp: str = ""
    size: str = ""
    quant: str = ""
    pickle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A file, and what to tell the user about it."""

    file: CivitaiFile
    warnings: tuple[str, ...] = ()


def choose(version: CivitaiVersion, wish: Wish | None = None) -> Chosen:
    """Choose a file of a version.

    Raises:
        NoSuitableFile: None may be taken, or none is as wished; says which there are.
    """
    wish = wish or Wish()
    named = _named(version, wish)
    if named is not None:
        return _taken(named, wish)
    fitting = [file for file in version.files if _may_be(file, version, wish)]
    if not fitting:
        raise NoSuitableFile(_SOURCE, f"{_title(version)} has no file as wished. {_list(version)}")
    safe = [file for file in fitting if _refusal(file, wish) is None]
    if not safe:
        return _taken(fitting[0], wish)
    if not wish.format:
        # An unasked-for Diffusers archive, ONNX or Core ML file is of no use to any server of ours.
        safe = [one for one in safe if format_of(one).casefold() in _TAKEN_UNASKED] or safe[:0]
        if not safe:
            raise NoSuitableFile(
                _SOURCE, f"{_title(version)} has no safetensors or GGUF file. {_list(version)}"
            )
    return _taken(min(enumerate(safe), key=lambda one: _order(*one))[1], wish)


def format_of(file: CivitaiFile) -> str:
    """Return a file's format; its suffix decides what a server does with it, so it wins."""
    lower = file.name.casefold()
    if lower.endswith((".safetensors", ".sft")):
        return "SafeTensor"
    if lower.endswith(".gguf"):
        return "GGUF"
    if lower.endswith(_PICKLES):
        return "PickleTensor"
    return file.wish("format") if not lower.endswith(".zip") else "Other"


def _named(version: CivitaiVersion, wish: Wish) -> CivitaiFile | None:
    """Return the file that was named by id or hash; None if none was named."""
    if wish.file_id:
        for file in version.files:
            if file.id == wish.file_id:
                return file
        raise NoSuitableFile(
            _SOURCE, f"{_title(version)} has no file {wish.file_id}. {_list(version)}"
        )
    wanted = wish.hash.strip().casefold().removeprefix("0x")
    if not wanted:
        return None
    if EMPTY_SHA256.startswith(wanted):
        raise NoSuitableFile(_SOURCE, "this is the hash of an empty file: it names no model")
    for file in version.files:
        if file.has_hash(wanted):
            return file
    raise NoSuitableFile(
        _SOURCE,
        f"{_title(version)} is known by that hash, but the file itself is not public."
        f" {_list(version)}",
    )


def _may_be(file: CivitaiFile, version: CivitaiVersion, wish: Wish) -> bool:
    kind = file.type.casefold()
    if kind in _NEVER and kind != wish.type.casefold():
        return False
    if wish.type:
        if kind != wish.type.casefold():
            return False
    elif kind not in _WEIGHTS and kind not in {"", _BY_MODEL.get(version.model.type.casefold())}:
        return False
    pairs = (
        (wish.format, format_of(file)),
        (wish.fp, file.wish("fp")),
        (wish.size, file.wish("size")),
        (wish.quant, file.wish("quantType")),
    )
    return all(not wanted or wanted.casefold() == there.casefold() for wanted, there in pairs)


def _order(place: int, file: CivitaiFile) -> tuple[int, int, int]:
    rank = {"SafeTensor": 0, "GGUF": 1}.get(format_of(file), 2)
    return (0 if file.primary else 1, rank, place)


def _refusal(file: CivitaiFile, wish: Wish) -> str | None:
    """Return why a file must not be taken; None if it may."""
    if "danger" in {file.pickle_scan_result.casefold(), file.virus_scan_result.casefold()}:
        return "Civitai's scan calls it dangerous"
    if format_of(file) == "PickleTensor":
        if not wish.pickle:
            return "it is a pickle, which runs what it says when loaded; allow pickles to take it"
        if file.pickle_scan_result.casefold() != "success":
            return "it is a pickle that Civitai has not scanned"
    return None


def _taken(file: CivitaiFile, wish: Wish) -> Chosen:
    if (problem := _refusal(file, wish)) is not None:
        raise NoSuitableFile(_SOURCE, f"{file.name or file.id}: {problem}")
    warnings: list[str] = []
    if "pending" in {file.pickle_scan_result.casefold(), file.virus_scan_result.casefold()}:
        warnings.append(f"{file.name} has not been scanned by Civitai yet")
    if not file.sha256:
        warnings.append(f"{file.name} has no SHA-256 there; only its size can be checked")
    return Chosen(file=file, warnings=tuple(warnings))


def _title(version: CivitaiVersion) -> str:
    return f"{version.model.name or 'model'} {version.name or version.id}"


def _list(version: CivitaiVersion) -> str:
    if not version.files:
        return "It lists no files at all"
    shown = [
        " ".join(
            part
            for part in (
                str(file.id),
                file.type,
                format_of(file),
                file.wish("size"),
                file.wish("fp"),
            )
            if part
        )
        for file in version.files[:8]
    ]
    return f"It has: {'; '.join(shown)}"
