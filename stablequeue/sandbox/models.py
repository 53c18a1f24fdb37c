"""The model files a sandbox pretends to have.

The default list is awkward on purpose: sub folders, spaces, brackets and letters beyond ASCII.
Nothing of it exists on disk; hashes are those of the names, so they never change. Besides, a shelf
may have folders of real files: what lies there when a list is read is listed, with its own hash.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from stablequeue.model_names import SUFFIXES
from stablequeue.storage.hashing import file_sha256

CHECKPOINTS = "checkpoints"
LORAS = "loras"
VAES = "vae"
UNETS = "diffusion_models"
TEXT_ENCODERS = "text_encoders"
UPSCALERS = "upscale_models"
EMBEDDINGS = "embeddings"
CONTROLNETS = "controlnet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file, pretended if it has no path.

    Attributes:
        kind: Folder as ComfyUI names it (`checkpoints`, `loras`, `vae`, ...).
        name: Path below that folder with `/` between its parts, with suffix.
        size_mb: Memory it takes on the card.
        load_seconds: How long loading takes.
        family: `sd15`, `sdxl`, `sd3` or `flux`.
        metadata: Its safetensors `__metadata__`.
        broken: Loading it fails.
        path: Where a real one is.
    """

    kind: str
    name: str
    size_mb: int = 2_034
    load_seconds: float = 0.0
    family: str = "sd15"
    metadata: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    broken: bool = False
    path: Path | None = None

    @property
    def sha256(self) -> str:
        """The file's hash, or one that stands for it."""
        if self.path is not None:
            status = self.path.stat()
            return _hashed(self.path, status.st_size, status.st_mtime_ns)
        return hashlib.sha256(f"{self.kind}/{self.name}".encode()).hexdigest()

    @property
    def short_hash(self) -> str:
        """First ten digits of `sha256`, as web UIs show it."""
        return self.sha256[:10]


@dataclass
class ModelShelf:
    """The files of one server, in order. Change it while the server runs: lists are read anew.

    Attributes:
        separator: Between folders in the names it tells (a Windows server has a backslash).
        folders: Folders of real files, by kind; looked into whenever a list is read.
    """

    files: list[ModelFile] = field(default_factory=list[ModelFile])
    separator: str = "/"
    folders: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def of(self, kind: str) -> list[ModelFile]:
        """Return the files of one kind, the real ones last."""
        pretended = [file for file in self.files if file.kind == kind]
        folder = self.folders.get(kind)
        return [*pretended, *(_real(kind, folder) if folder is not None else ())]

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind as this server tells them, sorted."""
        return sorted(self.told(file) for file in self.of(kind))

    def told(self, file: ModelFile) -> str:
        """Return the name of `file` as this server tells it."""
        return file.name.replace("/", self.separator)

    def find(self, kind: str, name: str) -> ModelFile | None:
        """Return the file told as exactly `name`, or None."""
        return next((file for file in self.of(kind) if self.told(file) == name), None)

    def add(self, kind: str, name: str, **options: object) -> ModelFile:
        """Put a file on the shelf; `options` are `ModelFile`'s other fields."""
        file = ModelFile(kind=kind, name=name, **options)  # type: ignore[arg-type]
        self.files.append(file)
        return file

    def remove(self, kind: str, name: str) -> None:
        """Take a file off the shelf; fine if it is not there."""
        self.files = [f for f in self.files if (f.kind, f.name) != (kind, name)]


def _real(kind: str, folder: Path) -> list[ModelFile]:
    """Return the model files in a folder, sorted; what only begins to be one is none."""
    found: list[ModelFile] = []
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(SUFFIXES) and path.is_file():
            name = path.relative_to(folder).as_posix()
            found.append(ModelFile(kind=kind, name=name, size_mb=1, path=path))
    return found


@lru_cache(maxsize=256)
def _hashed(path: Path, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # they say whether what is remembered still holds
    return file_sha256(path)


def default_models(*, load_seconds: float = 0.0, separator: str = "/") -> ModelShelf:
    """Return the usual shelf.

    Args:
        load_seconds: What putting a checkpoint or UNet on the card takes.
        separator: See `ModelShelf`.
    """

    def large(kind: str, names: Iterable[tuple[str, str, int]]) -> list[ModelFile]:
        return [
            ModelFile(
                kind=kind,
                name=name,
                family=family,
                size_mb=size,
                load_seconds=load_seconds,
                metadata={"modelspec.title": name.rsplit("/", 1)[-1], "format": "pt"},
            )
            for name, family, size in names
        ]

    def small(kind: str, names: Iterable[tuple[str, int]]) -> list[ModelFile]:
        return [ModelFile(kind=kind, name=name, size_mb=size) for name, size in names]

    files = [
        *large(
            CHECKPOINTS,
            [
                ("sandbox-sd15.safetensors", "sd15", 2_034),
                ("sandbox-sdxl.safetensors", "sdxl", 6_617),
                ("sub dir/landscapes v2 [pruned].safetensors", "sd15", 2_034),
                ("sub dir/deeper/übermalt (日本).safetensors", "sdxl", 6_617),
                ("old-style.ckpt", "sd15", 4_068),
            ],
        ),
        *large(
            UNETS,
            [
                ("flux/sandbox-flux-dev.safetensors", "flux", 11_350),
                ("sd3.safetensors", "sd3", 4_780),
            ],
        ),
        *small(
            TEXT_ENCODERS,
            [
                ("clip_g.safetensors", 1_325),
                ("clip_l.safetensors", 235),
                ("t5xxl_fp16.safetensors", 9_334),
                ("t5xxl_fp8_e4m3fn.safetensors", 4_667),
            ],
        ),
        *small(
            VAES,
            [
                ("ae.safetensors", 320),
                ("vae-ft-mse-840000-ema-pruned.safetensors", 319),
                ("xl/sdxl_vae.safetensors", 319),
            ],
        ),
        *(
            ModelFile(
                kind=LORAS,
                name=name,
                size_mb=144,
                metadata={
                    "ss_network_dim": "16",
                    "ss_base_model_version": "sd_1.5",
                    "ss_output_name": name.rsplit("/", 1)[-1].removesuffix(".safetensors"),
                },
            )
            for name in (
                "add-detail.safetensors",
                "style/ink wash [v1].safetensors",
                "style/日本画.safetensors",
            )
        ),
        *small(UPSCALERS, [("4x-UltraSharp.pth", 64), ("RealESRGAN_x2plus.pth", 64)]),
        *small(EMBEDDINGS, [("easynegative.safetensors", 1), ("bad hands/bad-hands-5.pt", 1)]),
        *small(CONTROLNETS, [("control_v11p_sd15_canny.safetensors", 689)]),
    ]
    return ModelShelf(files=files, separator=separator)
