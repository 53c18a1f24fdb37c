"""The model files as the server knows them: listed at boot and on refresh, hashed when loaded.

A checkpoint answers to several exact, case-sensitive names. Its title has no hash until the file
was loaded once; then ten hex digits are appended and the old title goes on working.
"""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter

from stablequeue.sandbox.forge.settings import ForgeSettings
from stablequeue.sandbox.models import (
    CHECKPOINTS,
    EMBEDDINGS,
    LORAS,
    TEXT_ENCODERS,
    UNETS,
    UPSCALERS,
    VAES,
    ModelFile,
    ModelShelf,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint as listed.

    Attributes:
        name: Path below the model folder, as this server tells it.
        hashed: Whether the server has learnt the hash.
    """

    file: ModelFile
    name: str
    hashed: bool

    @property
    def title(self) -> str:
        """Name with the hash in brackets, once it is known."""
        return f"{self.name} [{self.file.short_hash}]" if self.hashed else self.name

    @property
    def model_name(self) -> str:
        """Name without suffix, folders joined by underscores."""
        return stem(self.name.replace("/", "_").replace("\\", "_"))

    @property
    def base_name(self) -> str:
        """File name without folders and suffix: what results tell."""
        return stem(self.name.replace("\\", "/").rsplit("/", 1)[-1])

    def aliases(self) -> list[str]:
        """Return every name it answers to."""
        known = [self.name, self.model_name, self.base_name]
        if self.hashed:
            known += [self.title, self.file.short_hash, self.file.sha256]
        return known


def stem(name: str) -> str:
    """Return `name` without its suffix."""
    return PurePosixPath(name).stem if "/" not in name else name.rsplit(".", 1)[0]


@dataclass(frozen=True, slots=True)
class Lora:
    """One LoRA: `name` is the file's without folder and suffix, `alias` its trainer's."""

    file: ModelFile
    name: str
    alias: str


class Shelf:
    """What the server listed. `folder` is the data folder, for the paths it tells."""

    def __init__(self, models: ModelShelf, settings: ForgeSettings, folder: Path) -> None:
        self._models, self._settings, self._folder = models, settings, str(folder)
        self._cache = folder / "cache.json"
        self._hashed = self._read_hashes()
        self._checkpoints: list[ModelFile] = []
        self._loras: list[Lora] = []
        self._modules: list[ModelFile] = []
        self._embeddings: list[ModelFile] = []
        self.refresh_checkpoints()
        self.refresh_loras()
        self.refresh_modules()
        self.refresh_embeddings()
        self.upscalers = [stem(f.name.rsplit("/", 1)[-1]) for f in models.of(UPSCALERS)]

    def refresh_checkpoints(self) -> None:
        """List the checkpoints anew. Forge takes bare UNets for checkpoints, too."""
        kinds = (CHECKPOINTS, UNETS) if self._settings.is_forge else (CHECKPOINTS,)
        found = [file for kind in kinds for file in self._models.of(kind)]
        self._checkpoints = sorted(found, key=lambda file: file.name.lower())

    def refresh_loras(self) -> None:
        """List the LoRAs anew."""
        files = sorted(self._models.of(LORAS), key=lambda file: file.name.lower())
        names = [stem(file.name.rsplit("/", 1)[-1]) for file in files]
        self._loras = [
            Lora(file, name, file.metadata.get("ss_output_name", name))
            for file, name in zip(files, names, strict=True)
        ]

    def refresh_modules(self) -> None:
        """List VAEs and text encoders anew."""
        kinds = (VAES, TEXT_ENCODERS) if self._settings.is_forge else (VAES,)
        self._modules = [file for kind in kinds for file in self._models.of(kind)]

    def refresh_embeddings(self) -> None:
        """List the embeddings anew."""
        self._embeddings = self._models.of(EMBEDDINGS)

    # Checkpoints

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All of them, in the server's order."""
        return [
            Checkpoint(file, self._models.told(file), file.sha256 in self._hashed)
            for file in self._checkpoints
        ]

    def find(self, alias: Any) -> Checkpoint | None:
        """Return the checkpoint that answers to exactly `alias`; of two, the last listed."""
        for checkpoint in reversed(self.checkpoints):
            if alias in checkpoint.aliases():
                return checkpoint
        return None

    def _read_hashes(self) -> set[str]:
        try:
            return set(TypeAdapter(list[str]).validate_json(self._cache.read_bytes()))
        except (OSError, ValueError):
            return set()

    def learn_hash(self, checkpoint: Checkpoint) -> Checkpoint:
        """Remember that a checkpoint was loaded, hence hashed; return it as listed from now on.

        Hashes are kept in `cache.json` and survive a restart.
        """
        if checkpoint.file.sha256 not in self._hashed:
            self._hashed.add(checkpoint.file.sha256)
            self._cache.write_text(json.dumps(sorted(self._hashed)), encoding="utf-8")
        return Checkpoint(checkpoint.file, checkpoint.name, hashed=True)

    def path(self, *parts: str) -> str:
        """Return a path below the data folder as this server tells it."""
        return self._models.separator.join([self._folder, *parts])

    def list_checkpoints(self) -> list[dict[str, Any]]:
        """Return `GET /sdapi/v1/sd-models`."""
        return [
            {
                "title": c.title,
                "model_name": c.model_name,
                "hash": c.file.short_hash if c.hashed else None,
                "sha256": c.file.sha256 if c.hashed else None,
                "filename": str(c.file.path or self.path("models", "Stable-diffusion", c.name)),
                "config": None,
            }
            for c in self.checkpoints
        ]

    # Everything else

    def find_lora(self, name: str) -> Lora | None:
        """Return the LoRA with exactly this name or alias; of two, the last listed."""
        for lora in reversed(self._loras):
            if name in {lora.name, lora.alias}:
                return lora
        return None

    def alias_of_hash(self, short_hash: str) -> str | None:
        """Return the alias of the LoRA with this hash (12 hex digits), or None."""
        found = (lora.alias for lora in self._loras if lora.file.sha256[:12] == short_hash)
        return next(found, None)

    def list_loras(self) -> list[dict[str, Any]]:
        """Return `GET /sdapi/v1/loras`."""
        return [
            {
                "name": lora.name,
                "alias": lora.alias,
                "path": str(
                    lora.file.path or self.path("models", "Lora", self._models.told(lora.file))
                ),
                "metadata": dict(lora.file.metadata),
            }
            for lora in self._loras
        ]

    def list_modules(self) -> list[dict[str, Any]]:
        """Return `GET /sdapi/v1/sd-modules` (Forge) or `/sd-vae` (AUTOMATIC1111)."""
        return [
            {"model_name": self._told_base(file), "filename": self._module_path(file)}
            for file in self._modules
        ]

    def _told_base(self, file: ModelFile) -> str:
        return file.name.rsplit("/", 1)[-1]

    def _module_path(self, file: ModelFile) -> str:
        if file.path is not None:
            return str(file.path)
        folder = "VAE" if file.kind == VAES else "text_encoder"
        return self.path("models", folder, self._models.told(file))

    def find_module(self, name: Any) -> ModelFile | None:
        """Return the VAE or text encoder of this base name or path."""
        for file in self._modules:
            if name in (self._told_base(file), self._module_path(file)):
                return file
        return None

    def keep_modules(self, wanted: Any) -> list[str]:
        """Return the paths of those wanted modules that exist; the rest is dropped silently."""
        names: list[Any] = [*wanted] if isinstance(wanted, list) else []
        found = [self.find_module(name) for name in names]
        return [self._module_path(file) for file in found if file is not None]

    def list_embeddings(self) -> dict[str, Any]:
        """Return `GET /sdapi/v1/embeddings`."""
        return {
            "loaded": {
                stem(self._told_base(file)): {
                    "step": None,
                    "sd_checkpoint": None,
                    "sd_checkpoint_name": None,
                    "shape": 768,
                    "vectors": 1,
                }
                for file in self._embeddings
            },
            "skipped": {},
        }
