"""What flows along the links of a workflow, where the real server has tensors."""

from dataclasses import dataclass, field, replace
from typing import Self

from PIL import Image

from stablequeue.sandbox.card import CardOutOfMemory
from stablequeue.sandbox.models import ModelFile

OUT_OF_MEMORY = "torch.OutOfMemoryError"
LARGEST_PIXELS = 120_000_000
"""Of all pictures of one batch together; more is out of memory, as it would be there."""


class NodeFailed(Exception):
    """A node raises what the real one would raise.

    Args:
        type_name: The exception type as the server reports it, e.g. `torch.OutOfMemoryError`.
        message: Its text.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)
        self.type_name, self.message = type_name, message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Model:
    """An image model with its LoRAs (name, weight). `painted_as` is what the picture will say."""

    file: ModelFile
    name: str
    painted_as: str = ""
    loras: tuple[tuple[str, float], ...] = ()

    def with_lora(self, name: str, weight: float) -> Self:
        """Return this model with one LoRA more."""
        return replace(self, loras=(*self.loras, (name, weight)))


@dataclass(frozen=True)
class Clip:
    """Text encoders, and how many layers of them are used (0: all)."""

    names: tuple[str, ...]
    last_layer: int = 0


@dataclass(frozen=True)
class Vae:
    """A VAE."""

    name: str


@dataclass(frozen=True)
class UpscaleModel:
    """An upscale model and its factor."""

    name: str
    factor: int


@dataclass(frozen=True)
class Conditioning:
    """An encoded prompt."""

    text: str
    guidance: float = 0.0


@dataclass(frozen=True)
class Latent:
    """Latent pictures; `pictures` None: empty. Sizes in pixels. `mask`: white is repainted."""

    width: int
    height: int
    batch: int
    pictures: tuple[Image.Image, ...] | None = None
    mask: Image.Image | None = None

    def __post_init__(self) -> None:
        check_size(self.width, self.height, self.batch)


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures of one size."""

    items: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.items[0].size

    def __str__(self) -> str:
        width, height = self.size
        return f"tensor(batch={len(self.items)}, height={height}, width={width})"


@dataclass(frozen=True)
class Mask:
    """A mask, mode L; white counts."""

    picture: Image.Image

    def __str__(self) -> str:
        width, height = self.picture.size
        return f"tensor(height={height}, width={width})"


@dataclass(frozen=True)
class Noise:
    """Where noise comes from; `seed` None: there is none."""

    seed: int | None


@dataclass(frozen=True)
class Sigmas:
    """A schedule of noise levels."""

    scheduler: str
    steps: int
    denoise: float


@dataclass(frozen=True)
class Sampler:
    """A sampling algorithm."""

    name: str


@dataclass(frozen=True)
class Guider:
    """A model with its conditioning."""

    model: Model
    positive: Conditioning
    negative: Conditioning = field(default_factory=lambda: Conditioning(""))
    cfg: float = 1.0


def check_size(width: int, height: int, count: int) -> None:
    """Refuse pictures that no memory would hold.

    Raises:
        NodeFailed: As the real server's allocator.
    """
    pixels = width * height * count
    if pixels > LARGEST_PIXELS:
        raise NodeFailed(
            "RuntimeError",
            f"[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: "
            f"you tried to allocate {pixels * 12} bytes.",
        )


def type_name(error: BaseException) -> str:
    """Return the name of an exception's type as the server reports it."""
    if isinstance(error, NodeFailed):
        return error.type_name
    if isinstance(error, CardOutOfMemory):
        return OUT_OF_MEMORY
    kind = type(error)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{prefix}{kind.__qualname__}"
