"""The references to models that a text can become; `references` reads them.

`str()` of each is its canonical text.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from stablequeue.hiding import without_secrets
from stablequeue.models import addresses
from stablequeue.models.kinds import ModelType


class HashKind(StrEnum):
    """What a row of digits may be."""

    SHA256 = "sha256"
    BLAKE3 = "blake3"
    TENSORS = "tensors"  # all digits of which AutoV3 has 12
    AUTOV3 = "autov3"
    AUTOV2 = "autov2"
    AUTOV1 = "autov1"
    CRC32 = "crc32"


@dataclass(frozen=True, slots=True)
class Name:
    """A file by its name or path, as the person wrote it.

    Attributes:
        name: Without the hash of a title.
        digits: The hash of a title, lower case, or "": decides between files of the same name.
        kind: Only models of this type are meant; None: any.
    """

    name: str
    digits: str = ""
    kind: ModelType | None = None

    def __str__(self) -> str:
        if self.kind is ModelType.EMBEDDING:
            return f"embedding:{self.name}"
        return f"{self.name} [{self.digits}]" if self.digits else self.name


@dataclass(frozen=True, slots=True)
class Tag:
    """A network named in a prompt.

    Attributes:
        name: A file's stem, or the alias it was trained under; no folder, no suffix.
        weight: On the image model.
        text_weight: On the text encoder.
    """

    name: str
    kind: ModelType = ModelType.LORA
    weight: float = 1.0
    text_weight: float = 1.0

    def __str__(self) -> str:
        word = "hypernet" if self.kind is ModelType.HYPERNETWORK else "lora"
        return f"<{word}:{self.name}:{self.text_weight!r}:{self.weight!r}>"


@dataclass(frozen=True, slots=True)
class Hash:
    """A file by a hash of its bytes.

    Attributes:
        digits: Lower case hex. May begin a longer hash: 8 to 12 digits are short enough to meet
            by chance, so a hit is compared with the name where there is one.
        kinds: What the digits may be, most likely first.
        text: As written, because it may after all be a file's name.
    """

    digits: str
    kinds: tuple[HashKind, ...]
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.kinds[0]}:{self.digits}" if len(self.kinds) == 1 else self.digits


@dataclass(frozen=True, slots=True)
class CivitaiVersion:
    """One version of a model on Civitai.

    Attributes:
        version_id: Civitai's id.
        model_id: Of the model it belongs to; 0: not told.
        file_id: One of its files; 0: the one Civitai prefers.
        kind: What the reference claims it is; a hint only.
        wish: What a download address asks for (`type`, `format`, `size`, `fp`), in order.
    """

    version_id: int
    model_id: int = 0
    file_id: int = 0
    kind: ModelType | None = field(default=None, compare=False)
    wish: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.wish:
            asked = addresses.query(self.wish, file_id=self.file_id)
            return f"https://civitai.com/api/download/models/{self.version_id}{asked}"
        file = f"+{self.file_id}" if self.file_id else ""
        if self.model_id:
            return f"civitai:{self.model_id}@{self.version_id}{file}"
        return f"version:{self.version_id}{file}"


@dataclass(frozen=True, slots=True)
class CivitaiModel:
    """A model on Civitai, in the version it shows first."""

    model_id: int
    kind: ModelType | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"civitai:{self.model_id}"


@dataclass(frozen=True, slots=True)
class CivitaiImage:
    """A picture on Civitai: all models it was made with."""

    image_id: int

    def __str__(self) -> str:
        return f"https://civitai.com/images/{self.image_id}"


@dataclass(frozen=True, slots=True)
class Number:
    """A bare number: a version on Civitai, else a model there, else a file's name."""

    number: int

    def __str__(self) -> str:
        return str(self.number)


@dataclass(frozen=True, slots=True)
class HuggingFaceFile:
    """A file in a repository on Hugging Face; `path` is relative, with slashes, and harmless."""

    repo: str
    path: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.path}@{self.revision}"


@dataclass(frozen=True, slots=True)
class DirectUrl:
    """A file at an https address without user and password.

    `url` may be signed: show `str()`, never this.
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        return without_secrets(self.url)


Reference = (
    Name
    | Tag
    | Hash
    | CivitaiVersion
    | CivitaiModel
    | CivitaiImage
    | Number
    | HuggingFaceFile
    | DirectUrl
)
