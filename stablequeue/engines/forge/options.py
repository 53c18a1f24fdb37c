"""The server's settings: which are overridden for a job, and how they are kept from leaking.

The server undoes an override only if its memory already holds that key. On a fresh installation
it does not, and the override stays for everybody (recordings `override_clipskip`, `override_jpg`).
So once a boot each key we override is stored with the value it has: then it is present.

Where that cannot be done (settings unreadable, or frozen), overrides that would spoil other
people's work if they stayed, those of file names, are left out; such a job's result cannot be
recovered by its file's name after a lost connection.
"""

from dataclasses import dataclass
from typing import Any

from stablequeue.engines.forge.answers import JSON, mapping, sequence, text
from stablequeue.engines.forge.boot import Boot
from stablequeue.engines.forge.client import ForgeClient
from stablequeue.wire import logger

CHECKPOINT = "sd_model_checkpoint"
MODULES = "forge_additional_modules"
MODULES_IN_USE = f"{MODULES} not empty"  # for `pin`: no key, but what needs more than its value
VAE = "sd_vae"
CLIP_SKIP = "CLIP_stop_at_last_layers"
PATTERN = "samples_filename_pattern"
WHOLE_ONLY = "save_incomplete_images"

ALWAYS: JSON = {
    "samples_save": True,
    "samples_format": "png",
    "save_to_dirs": False,
    "save_images_add_number": False,
    "save_images_replace_action": "Replace",
    WHOLE_ONLY: False,
    "return_grid": False,
    "grid_save": False,
    "return_mask": False,
    "return_mask_composite": False,
    "enable_pnginfo": True,
    "add_model_name_to_info": True,
    "add_model_hash_to_info": True,
}
"""Overridden for every job, besides the models, CLIP skip and the file's name."""

_FILE_NAMES = {PATTERN, "save_to_dirs", "save_images_add_number", "save_images_replace_action"}
_FOLDERS = {"txt2img": "outdir_txt2img_samples", "img2img": "outdir_img2img_samples"}
_NEEDED = {CHECKPOINT, MODULES, VAE, CLIP_SKIP, "samples_format"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `GET /sdapi/v1/options` told; None: it failed."""

    values: JSON | None

    @property
    def readable(self) -> bool:
        """Whether the server can tell its settings."""
        return self.values is not None

    @property
    def checkpoint(self) -> str:
        """The selected checkpoint; empty if unknown or none."""
        return text((self.values or {}).get(CHECKPOINT))

    @property
    def modules(self) -> tuple[str, ...]:
        """The selected VAE and text encoders (Forge), names or paths."""
        return tuple(filter(None, map(text, sequence((self.values or {}).get(MODULES)))))

    def to_json(self) -> JSON:
        """Return what a job's payload needs to know: keys to override, folders of its files."""
        if self.values is None:
            return {"readable": False}
        known = [key for key in (*ALWAYS, PATTERN, CLIP_SKIP, VAE, MODULES) if key in self.values]
        folders = {kind: text(self.values.get(key)) for kind, key in _FOLDERS.items()}
        named = all(key in known for key in _FILE_NAMES if key != "save_images_replace_action")
        return {
            "readable": True,
            "keys": known,
            "folders": folders,
            "names_files": named,
        }


def file_path(settings: JSON, kind: str, remote_id: str, seed: int) -> str:
    """Return where a job's picture is saved, as `/file=` wants it; empty if that is unknown."""
    folder = text(mapping(settings.get("folders")).get(kind))
    if not settings.get("names_files") or not folder:
        return ""
    return f"{folder.rstrip('/')}/{remote_id}-{seed}.png"


def applicable(wanted: JSON, settings: JSON, *, pinned: bool) -> JSON:
    """Return the overrides that may be sent: an unknown key fails the job with 500 KeyError.

    Args:
        wanted: Everything that should be overridden.
        settings: What `Settings.to_json` told.
        pinned: Whether they will be undone after the job.
    """
    known = {*map(text, sequence(settings.get("keys"))), *_NEEDED}
    left_out = set[str]() if pinned and settings.get("names_files") else _FILE_NAMES
    own = {*ALWAYS, PATTERN}
    return {
        key: value
        for key, value in wanted.items()
        if key not in left_out and (key in known or key not in own)
    }


async def pin(client: ForgeClient, boot: Boot, keys: set[str]) -> bool | None:
    """Make option keys present in the server's memory, each with the value it has.

    Returns:
        True when overrides of them are undone; False when that cannot be had; None when somebody
        began to use the server meanwhile (nothing was stored).
    """
    missing = keys - boot.pinned
    if not missing:
        return True
    values = await client.options()
    modules = await client.modules() if MODULES_IN_USE in missing else None
    if values is None:
        logger.warning("the server's settings cannot be read, so they cannot be protected")
        return False
    if not (await client.state()).idle:
        return None
    bodies = _bodies(values, missing, [module.model_name for module in modules or []])
    for body in bodies:
        response = await client.set_options(body)
        if not response.is_success and CHECKPOINT in body:
            # One whose file is gone ends the request, but only after all before it were stored.
            response = await client.set_options({k: v for k, v in body.items() if k != CHECKPOINT})
        if not response.is_success:
            logger.warning("the server does not let its settings be stored")
            return False
    boot.pinned |= missing
    return True


def _bodies(values: JSON, keys: set[str], modules: list[str]) -> list[JSON]:
    """Return what to store, one request after the other, so that `keys` become present.

    Storing an empty list of modules where there is none yet changes nothing, so another one is
    stored before it. Without any modules nothing can leak.
    """
    present = {key: _stored(values[key]) for key in sorted(keys) if values.get(key) is not None}
    if CHECKPOINT in present:
        present[CHECKPOINT] = present.pop(CHECKPOINT)
    if MODULES_IN_USE in keys and modules and values.get(MODULES) == []:
        return [{MODULES: modules[:1]}, {**present, MODULES: []}]
    return [present] if present else []


def _stored(value: Any) -> Any:
    """Undo what telling does: every number is told as a float, and some are used as an index."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
