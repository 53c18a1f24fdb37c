"""What the library tells: plain, frozen, ready for `--json`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stablequeue.models.compatibility import Described
from stablequeue.models.families import Family
from stablequeue.models.kinds import ModelType


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One model file of this host.

    Attributes:
        path: Absolute, through the root it was found in.
        root: The folder it was found in.
        name: Relative to the root, with slashes: what ComfyUI lists, and Forge but for its hash.
        kind: Type of models in that folder.
        shown_kind: What the header shows it is; None: not told.
        size: In bytes.
        sha256: "" until it is hashed.
        tensors_sha256: Hash without header, 64 digits; its first 12 are AutoV3.
        embedded: Hash without header as the file itself claims, 12 or 64 digits. May be wrong.
        alias: The name a LoRA was trained under (`ss_output_name`).
        problem: Why it cannot be used, one line; "": nothing is wrong.
        base_model: Civitai's word, from a sidecar.
        uses: How often jobs used these bytes, under any name.
        last_used_ms: Milliseconds since 1970; 0: never.
    """

    path: Path
    root: Path
    name: str
    kind: ModelType
    shown_kind: ModelType | None = None
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    tensors_sha256: str = ""
    autov1: str = ""
    crc32: str = ""
    blake3: str = ""
    embedded: str = ""
    format: str = ""
    family: Family | None = None
    variant: str = ""
    prediction: str = ""
    latent_channels: int = 0
    alias: str = ""
    title: str = ""
    base_model: str = ""
    model_id: int = 0
    version_id: int = 0
    problem: str = ""
    uses: int = 0
    last_used_ms: int = 0
    pinned: bool = False
    tags: tuple[str, ...] = ()

    @property
    def autov2(self) -> str:
        """The first 10 digits of the SHA-256."""
        return self.sha256[:10]

    @property
    def autov3(self) -> str:
        """The first 12 digits of the hash without header."""
        return self.tensors_sha256[:12]

    @property
    def described(self) -> Described:
        """What the rules of compatibility need."""
        return Described(
            name=self.name,
            kind=self.kind,
            family=self.family,
            base_model=self.base_model,
            variant=self.variant,
            latent_channels=self.latent_channels,
        )

    def serves(self, kind: ModelType | None) -> bool:
        """Say whether the file can be meant where a model of this type is wanted.

        A file with the image model alone lies among Forge's checkpoints too.
        """
        if kind is None or kind in {self.kind, self.shown_kind}:
            return True
        images = {ModelType.CHECKPOINT, ModelType.DIFFUSION_MODEL}
        return kind in images and self.kind in images and self.shown_kind in {None, *images}

    def to_json(self) -> dict[str, Any]:
        """Return plain data, derived names included."""
        return {
            **asdict(self),
            "path": str(self.path),
            "root": str(self.root),
            "autov2": self.autov2,
            "autov3": self.autov3,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanProgress:
    """How far hashing is. `name` is a file just worked on."""

    files_done: int
    files: int
    bytes_done: int
    bytes: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What a scan found.

    Attributes:
        files: How many there are now.
        added: New ones, by name.
        changed: Whose bytes or sidecars changed.
        moved: (old path, new path) of files recognised by their bytes.
        missing: Not there any more; their record is kept in case a disk comes back.
        hashed: How many were hashed.
        problems: (path, why) of files that cannot be used or were being written.
    """

    files: int = 0
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    hashed: int = 0
    problems: tuple[tuple[str, str], ...] = ()
