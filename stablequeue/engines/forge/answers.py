"""What Forge and AUTOMATIC1111 answer, read into plain models; nonsense is refused.

Fields nobody here uses are ignored, because forks add their own.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

JSON = dict[str, Any]
SHOWN = 300
"""Characters of a server's own words that go into a message."""

T = TypeVar("T")


class Nonsense(ValueError):
    """An answer without the shape it should have; one line, without the answer itself."""


def _text_or_empty(value: Any) -> Any:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_text_or_empty)]
"""Text; null counts as empty."""


class Answer(BaseModel):
    """Base of what is read from a server."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Checkpoint(Answer):
    """An entry of `/sdapi/v1/sd-models`. `hash` is 10 digits, empty until the file was hashed."""

    title: str
    model_name: Text = ""
    hash: Text = ""
    sha256: Text = ""
    filename: Text = ""

    @property
    def name(self) -> str:
        """The title without its ` [hash]`: the path below the model folder."""
        return self.title.removesuffix(f" [{self.hash}]") if self.hash else self.title


class ModelFile(Answer):
    """An entry of `/sdapi/v1/sd-modules` or `/sdapi/v1/sd-vae`."""

    model_name: str
    filename: Text = ""


class LoraFile(Answer):
    """An entry of `/sdapi/v1/loras`. `name` is the file's base name without suffix."""

    name: str
    alias: Text = ""
    path: Text = ""


class Sampler(Answer):
    """An entry of `/sdapi/v1/samplers`. Only `name` is understood in a request, not an alias."""

    name: str
    aliases: list[str] | None = None


class Scheduler(Answer):
    """An entry of `/sdapi/v1/schedulers`."""

    name: str
    label: Text = ""
    aliases: list[str] | None = None


class Named(Answer):
    """Anything with a name: upscalers, latent upscale modes, styles."""

    name: str


class Scripts(Answer):
    """`/sdapi/v1/scripts`: titles in lower case."""

    txt2img: list[str | None] = []
    img2img: list[str | None] = []


class Embeddings(Answer):
    """`/sdapi/v1/embeddings`."""

    loaded: Mapping[str, Any] = {}
    skipped: Mapping[str, Any] = {}


class State(Answer):
    """`state` in `/sdapi/v1/progress`: what the server does now, for anybody."""

    job: Text = ""
    job_count: int = 0
    job_no: int = 0
    job_timestamp: Text = ""
    sampling_step: int = 0
    sampling_steps: int = 0
    interrupted: bool = False
    skipped: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing runs; `job_count` is -1 while a model is loading."""
        return self.job_count == 0 and not self.job


class GlobalProgress(Answer):
    """`/sdapi/v1/progress`."""

    progress: float = 0.0
    state: State = State()
    current_image: str | None = None


class TaskProgress(Answer):
    """`/internal/progress` for one task id. `completed` is remembered for 16 tasks only."""

    active: bool = False
    queued: bool = False
    completed: bool = False
    progress: float | None = None
    live_preview: str | None = None
    id_live_preview: int | None = -1

    @property
    def unknown(self) -> bool:
        """Never registered, or forgotten."""
        return not (self.active or self.queued or self.completed)


class Pending(Answer):
    """`/internal/pending-tasks`: waiting task ids, with some that leaked."""

    tasks: list[str] = []


class AppId(Answer):
    """`/app_id`: new at each start of the process."""

    app_id: int | str
    stablequeue_sandbox: bool = False


class Memory(Answer):
    """`/sdapi/v1/memory`, in bytes."""

    cuda: Mapping[str, Any] = {}

    @property
    def total(self) -> int:
        """The card's memory; 0 without a card."""
        return self._bytes("total")

    @property
    def free(self) -> int:
        """What is free of it."""
        return self._bytes("free")

    def _bytes(self, key: str) -> int:
        value = mapping(self.cuda.get("system")).get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0


class Generated(Answer):
    """Answer to txt2img and img2img. `info` is a JSON text; `parameters` only echoes."""

    images: list[str] | None = None
    info: str


class Info(Answer):
    """`info`, decoded: what was really used."""

    all_seeds: list[int] = []
    sd_model_name: Text = ""
    sd_model_hash: Text = ""
    sampler_name: Text = ""
    index_of_first_image: int = 0
    infotexts: list[str] = []
    job_timestamp: Text = ""
    version: Text = ""


class Extras(Answer):
    """Answer to extra-single-image."""

    image: str
    html_info: Text = ""


CHECKPOINTS = TypeAdapter(list[Checkpoint])
MODEL_FILES = TypeAdapter(list[ModelFile])
LORAS = TypeAdapter(list[LoraFile])
SAMPLERS = TypeAdapter(list[Sampler])
SCHEDULERS = TypeAdapter(list[Scheduler])
NAMES = TypeAdapter(list[Named])
OBJECT = TypeAdapter(dict[str, Any])
SCRIPTS = TypeAdapter(Scripts)
EMBEDDINGS = TypeAdapter(Embeddings)
PROGRESS = TypeAdapter(GlobalProgress)
TASK = TypeAdapter(TaskProgress)
PENDING = TypeAdapter(Pending)
APP_ID = TypeAdapter(AppId)
MEMORY = TypeAdapter(Memory)
GENERATED = TypeAdapter(Generated)
INFO = TypeAdapter(Info)
EXTRAS = TypeAdapter(Extras)


def read(shape: TypeAdapter[T], body: bytes | str) -> T:
    """Parse JSON of a certain shape.

    Raises:
        Nonsense: It is not JSON, or of another shape.
    """
    try:
        return shape.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"][:4])
        raise Nonsense(one_line(f"{place or 'it'}: {first['msg']}", 120)) from None


def mapping(value: Any) -> JSON:
    """Return `value` if it is an object, else an empty one."""
    return cast("JSON", value) if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return `value` if it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return `value` if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def one_line(value: Any, limit: int = SHOWN) -> str:
    """Return a server's words as one printable line of bounded length."""
    line = " ".join(str(value)[: 4 * limit].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
