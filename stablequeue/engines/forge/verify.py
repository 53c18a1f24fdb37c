"""Was the picture made as asked? The server says 200 either way.

An unknown model, sampler, scheduler, LoRA or module is replaced or dropped without a word, and a
human may change settings during a run; what was really used stands in `info` and the infotext.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stablequeue.engines.forge import names
from stablequeue.engines.forge.answers import JSON, Info, text
from stablequeue.engines.samplers import AUTOMATIC
from stablequeue.errors import ProtocolError, UnreadableFile, WrongModel
from stablequeue.prompts.infotext import parse_infotext

_HASH_DIGITS = 10
_ROUNDING = 64
"""Pixels by which a server may round a size (SD3 wants multiples of 16); more is another size."""

_LORA_SYMBOLS = str.maketrans("", "", ":,")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the server says about a picture. Empty or None: it does not say."""

    model: str = ""
    hash: str = ""
    sampler: str = ""
    scheduler: str = ""
    seed: int | None = None
    clip_skip: int = 1
    loras: Mapping[str, str] = field(default_factory=dict[str, str])  # name -> hash
    modules: tuple[str, ...] = ()
    vae: str = ""
    version: str = ""


def read_made(infotext: str, info: Info | None) -> Made:
    """Read what the server says; `info` is lost with a connection, the infotext is in the file."""
    params: Mapping[str, str] = {}
    with contextlib.suppress(UnreadableFile):  # longer than any infotext: nothing is told
        params = parse_infotext(infotext).params
    seeds = info.all_seeds if info else []
    return Made(
        model=(info.sd_model_name if info else "") or params.get("Model", ""),
        hash=(info.sd_model_hash if info else "") or params.get("Model hash", ""),
        sampler=(info.sampler_name if info else "") or params.get("Sampler", ""),
        scheduler=params.get("Schedule type", ""),
        seed=seeds[0] if seeds else _whole(params.get("Seed", "")),
        clip_skip=_whole(params.get("Clip skip", "")) or 1,
        loras=_pairs(params.get("Lora hashes", "")),
        modules=tuple(value for key, value in params.items() if key.startswith("Module ")),
        vae=params.get("VAE", ""),
        version=(info.version if info else "") or params.get("Version", ""),
    )


def check(server: str, expected: JSON, made: Made) -> None:
    """Compare what was asked with what was made.

    Args:
        server: The server's alias.
        expected: What `payload.expected` says, from the ticket.
        made: What the server says.

    Raises:
        WrongModel: They differ; the picture must not be kept.
        ProtocolError: The server does not say which model it used.
    """
    for problem in (
        _model(server, expected, made),
        _sampling(expected, made),
        _loras(expected, made),
        _modules(expected, made),
        _numbers(expected, made),
    ):
        if problem:
            raise WrongModel(
                server, f"{problem}. The picture was not kept; try again, or look at the server"
            )


def check_size(server: str, asked: Sequence[Any] | None, pixels: tuple[int, int]) -> str:
    """Compare sizes in pixels; return a warning for a rounded one, empty if it is as asked.

    Raises:
        WrongModel: It is another size.
    """
    match asked:
        case [int(width), int(height)] if (width, height) != pixels:
            pass
        case _:
            return ""
    told = f"it made {pixels[0]} x {pixels[1]} pixels instead of {width} x {height}"
    if max(abs(width - pixels[0]), abs(height - pixels[1])) >= _ROUNDING:
        raise WrongModel(server, f"{told}. The picture was not kept")
    return told


def _model(server: str, expected: JSON, made: Made) -> str:
    wanted, digest = text(expected.get("model")), text(expected.get("hash"))
    if not made.model and not made.hash:
        raise ProtocolError(server, "it does not say which model made the picture; update it")
    if digest and made.hash:
        if _same_hash(digest, made.hash):
            return ""
    elif not wanted or _plain(made.model) == _plain(wanted):
        return ""
    asked = f"{wanted} [{digest}]" if digest else wanted
    used = f"{made.model} [{made.hash}]" if made.hash else made.model
    return f"it used the model {used} instead of {asked}"


def _sampling(expected: JSON, made: Made) -> str:
    sampler, scheduler = text(expected.get("sampler")), text(expected.get("scheduler"))
    if sampler and made.sampler and sampler.casefold() != made.sampler.casefold():
        return f"it used the sampler {made.sampler!r} instead of {sampler!r}"
    explicit = scheduler and scheduler != AUTOMATIC
    if explicit and made.scheduler and scheduler.casefold() != made.scheduler.casefold():
        return f"it used the scheduler {made.scheduler!r} instead of {scheduler!r}"
    return ""


def _loras(expected: JSON, made: Made) -> str:
    if not made.hash:
        return ""  # --no-hashing: it names no LoRA either
    listed: list[Any] = expected.get("loras") or []
    wanted = [str(name).translate(_LORA_SYMBOLS) for name in listed]
    missing = [name for name in wanted if name not in made.loras]
    if missing:
        return (
            f"it did not use the LoRA {', '.join(missing)}"
            " (or its setting 'Add Lora hashes to infotext' is off)"
        )
    added = [name for name in made.loras if name not in wanted]
    if added and expected.get("only_these_loras"):
        return (
            f"it added the LoRA {', '.join(added)} by itself (its setting 'Add network to prompt')"
        )
    return ""


def _modules(expected: JSON, made: Made) -> str:
    modules: list[Any] | None = expected.get("modules")
    if modules is not None:
        wanted = sorted(names.stem(str(name)) for name in modules)
        used = sorted(names.stem(name) for name in made.modules)
        if wanted != used:
            return (
                f"it used the modules {', '.join(used) or 'none'}"
                f" instead of {', '.join(wanted) or 'none'}"
            )
        return ""
    vae = text(expected.get("vae"))
    if vae and made.vae and names.stem(vae) != names.stem(made.vae):
        return f"it used the VAE {made.vae} instead of {vae}"
    return ""


def _numbers(expected: JSON, made: Made) -> str:
    seed, clip_skip = expected.get("seed"), expected.get("clip_skip", 1)
    if seed is not None and made.seed is not None and seed != made.seed:
        return f"it used the seed {made.seed} instead of {seed}"
    if clip_skip != made.clip_skip:
        return f"it used CLIP skip {made.clip_skip} instead of {clip_skip}"
    return ""


def _plain(name: str) -> str:
    # Older infotexts drop these letters from model names.
    return name.translate(_LORA_SYMBOLS).strip()


def _same_hash(one: str, other: str) -> bool:
    return one[:_HASH_DIGITS].casefold() == other[:_HASH_DIGITS].casefold()


def _pairs(listed: str) -> dict[str, str]:
    """Read `name: hash, name: hash`; names have lost their own colons and commas."""
    found: dict[str, str] = {}
    for part in listed.split(","):
        name, _, digest = part.rpartition(":")
        if name.strip():
            found[name.strip()] = digest.strip()
    return found


def _whole(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None  # noqa: PLR2004
