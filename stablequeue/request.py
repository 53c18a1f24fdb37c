"""`GenerationRequest`: the one shape of a job for every way in.

Optional fields have neutral defaults (an empty text, 0) instead of None, because Prefect's run form
turns every nullable field into a tab. Descriptions are what that form shows.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from stablequeue.editor_workflow import is_editor_format, read_editor_workflow
from stablequeue.errors import BadRequest
from stablequeue.request_checks import (
    LONGEST_MODEL,
    checked_model,
    dotted,
    field_parts,
    one_line,
    refuse_unstorable,
)
from stablequeue.servers import ALIAS_PATTERN, ANY

SCHEMA_VERSION = 1
LARGEST_SEED = 2**53 - 1  # what JSON survives in every reader, Prefect's pages included
INPUT_REFERENCE = r"^sha256:[0-9a-f]{64}$"

Prompt = Annotated[str, Field(max_length=100_000)]
Name = Annotated[str, Field(max_length=1_000)]
ModelName = Annotated[str, Field(max_length=LONGEST_MODEL), AfterValidator(checked_model)]
"""A model: a name as a server lists it, or anything else that `models.references` reads."""


class Mode(StrEnum):
    """What is to be made."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    UPSCALE = "upscale"
    WORKFLOW = "workflow"


class Tier(StrEnum):
    """How soon; within a tier first come, first served."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(_Part):
    """One LoRA and how strongly it is applied."""

    name: ModelName = Field(
        min_length=1, description="As the server lists it, its base name, a hash or an address."
    )
    weight: float = Field(default=1.0, ge=-10, le=10, description="Strength on the image model.")
    # Bounds on a union with SkipJsonSchema[None] would be tried on None, and raise TypeError.
    text_weight: Annotated[
        float | None,
        Field(ge=-10, le=10),
        WithJsonSchema({"type": "number", "minimum": -10, "maximum": 10}),
    ] = Field(default=None, description="Strength on the text encoder; empty: the same.")


class Hires(_Part):
    """A second, larger pass over a txt2img picture."""

    scale: float = Field(
        default=0.0, ge=0, le=8, description="Enlarge by this factor. 0 or 1: no second pass."
    )
    upscaler: Name = Field(default="Latent", description="Latent, or an upscale model's name.")
    steps: int = Field(default=0, ge=0, le=1000, description="0: as many as the first pass.")
    denoising_strength: float = Field(
        default=0.5, ge=0, le=1, description="How much of the first picture may change."
    )

    @property
    def enabled(self) -> bool:
        """Whether there is a second pass at all."""
        return self.scale > 1


class Inpaint(_Part):
    """How a mask is used (mode inpaint). White in the mask is repainted."""

    mask_blur: int = Field(default=4, ge=0, le=256, description="Pixels.")
    only_masked: bool = Field(default=False, description="Work at full size on the masked part.")
    padding: int = Field(default=32, ge=0, le=1024, description="Pixels around the masked part.")
    invert: bool = Field(default=False, description="Repaint what is black instead.")
    fill: Literal["fill", "original", "latent noise", "latent nothing"] = Field(
        default="original", description="What the masked part starts from."
    )


class Upscale(_Part):
    """Enlarging without a prompt (mode upscale)."""

    scale: float = Field(default=2.0, gt=1, le=8, description="Enlarge by this factor.")
    upscaler: Name = Field(default="", description="An upscale model's name. Empty: Lanczos.")


class Output(_Part):
    """How the stored file is encoded. `original` keeps the server's bytes."""

    format: Literal["original", "webp", "jpeg"] = Field(
        default="original", description="Original: as the server sent it."
    )
    quality: int = Field(default=90, ge=1, le=100, description="Of WEBP and JPEG.")


class ForgeSection(_Part):
    """What only Forge and AUTOMATIC1111 understand."""

    styles: list[Name] = Field(
        default_factory=list[str], description="Names of saved styles, added to the prompts."
    )
    override_settings: dict[str, JsonValue] = Field(
        default_factory=dict[str, JsonValue],
        description="Settings of the web UI for this job only.",
    )
    script_name: Name = Field(default="", description="A script to run, by its title.")
    script_args: list[JsonValue] = Field(
        default_factory=list[JsonValue], description="What the script is given, in its order."
    )
    payload: dict[str, JsonValue] = Field(
        default_factory=dict[str, JsonValue],
        description="Further fields of /sdapi/v1/txt2img or img2img, sent as they are.",
    )


class ComfyUISection(_Part):
    """What only ComfyUI understands."""

    extra_pnginfo: dict[str, JsonValue] = Field(
        default_factory=dict[str, JsonValue],
        description="Embedded in the PNG beside the prompt, e.g. the UI's workflow.",
    )
    preview_method: Literal["", "none", "auto", "latent2rgb", "taesd"] = Field(
        default="", description="How previews are made. Empty: as the server was started."
    )


class Sections(_Part):
    """Settings of one kind of server. A job with sections goes only to servers of those kinds."""

    forge: ForgeSection | SkipJsonSchema[None] = None
    comfyui: ComfyUISection | SkipJsonSchema[None] = None

    @property
    def present(self) -> frozenset[str]:
        """The kinds of server this request says something for.

        An untouched section says nothing: forms send those too.
        """
        given = ((name, getattr(self, name)) for name in type(self).model_fields)
        return frozenset(name for name, section in given if section and section != type(section)())


class GenerationRequest(BaseModel):
    """A job: what to make, with what, where.

    Frozen; sizes in pixels; `seed` 0 is 0 and -1 means one derived from the job's id, so a retry
    repeats it. Picture k of `count` has seed + k. `init_image` and `mask_image` are paths or
    `sha256:` references when asked for, and always references once accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", title="Generation request")

    schema_version: Literal[1] = Field(default=1, description="Leave as it is.")
    mode: Mode = Field(default=Mode.TXT2IMG, description="What to make.")
    prompt: Prompt = Field(
        default="",
        description="What the picture shows.",
        validation_alias=AliasChoices("prompt", "positive_prompt"),
    )
    negative_prompt: Prompt = Field(default="", description="What it must not show.")
    server: str = Field(
        default=ANY, description="Alias of a server, or any.", pattern=ALIAS_PATTERN
    )
    tier: Tier = Field(default=Tier.NORMAL, description="How soon.")

    checkpoint: ModelName = Field(
        default="", description="Model file. Empty: what the server has loaded now."
    )
    unet: ModelName = Field(
        default="", description="Separate image model (Flux, SD3), if no checkpoint."
    )
    text_encoders: list[ModelName] = Field(
        default_factory=list[str], max_length=4, description="Separate text encoders, in order."
    )
    vae: ModelName = Field(default="", description="Empty: the checkpoint's own.")
    loras: list[Lora] = Field(
        default_factory=list[Lora], max_length=64, description="Small additions to the model."
    )
    clip_skip: int = Field(
        default=0, ge=0, le=24, description="Layers of CLIP to leave out; 0: the model's own."
    )

    width: int = Field(default=512, ge=16, le=16384, multiple_of=8, description="Pixels.")
    height: int = Field(default=512, ge=16, le=16384, multiple_of=8, description="Pixels.")
    steps: int = Field(default=20, ge=1, le=1000, description="Sampling steps.")
    cfg_scale: float = Field(default=7.0, ge=0, le=100, description="How closely to obey.")
    guidance: float = Field(
        default=3.5, ge=0, le=100, description="Distilled guidance (Flux); ignored elsewhere."
    )
    sampler: Name = Field(default="Euler", description="As Forge or as ComfyUI names it.")
    scheduler: Name = Field(default="", description="Empty: the sampler's usual one.")
    seed: int = Field(
        default=-1, ge=-1, le=LARGEST_SEED, description="-1: a new one, the same on a retry."
    )
    count: int = Field(default=1, ge=1, le=1000, description="Pictures, with seeds s, s+1, ...")

    init_image: Name = Field(default="", description="Picture to start from (a path).")
    mask_image: Name = Field(default="", description="Mask for inpaint (a path).")
    denoising_strength: float = Field(
        default=0.75, ge=0, le=1, description="How much of the start picture may change."
    )
    inpaint: Inpaint = Field(default_factory=Inpaint)
    hires: Hires = Field(default_factory=Hires, description="A second, larger pass.")
    upscale: Upscale = Field(default_factory=Upscale, description="For mode upscale.")

    workflow: dict[str, JsonValue] = Field(
        default_factory=dict[str, JsonValue],
        description="ComfyUI workflow, as its editor saves it or in API format (mode workflow).",
    )
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict[str, JsonValue],
        description="Workflow inputs to replace: NODE.INPUT, by node id or title.",
    )
    alwayson_scripts: dict[str, JsonValue] = Field(
        default_factory=dict[str, JsonValue],
        description="Forge extensions, passed on whole: {title: {args: [...]}}.",
    )
    sections: Sections = Field(
        default_factory=Sections, description="Settings of one kind of server."
    )

    output: Output = Field(default_factory=Output, description="How the file is stored.")
    tags: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list[str], max_length=50, description="To find the job and its pictures by."
    )
    source: str = Field(default="", max_length=200, description="Who asked, e.g. a script's name.")
    expires_at: AwareDatetime | SkipJsonSchema[None] = Field(
        default=None, description="Not started by then: it expires, visibly. With a time zone."
    )

    @field_validator("workflow")
    @classmethod
    def _known_format(cls, workflow: dict[str, Any]) -> dict[str, Any]:
        if is_editor_format(workflow):
            try:
                read_editor_workflow(workflow)
            except BadRequest as error:
                raise ValueError(error.problem) from None
            return workflow
        for node_id, node in workflow.items():
            if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
                msg = f"node {node_id!r} has no class_type; this is no workflow of ComfyUI"
                raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError only
        return workflow

    @model_validator(mode="after")
    def _fits_mode(self) -> Self:
        needs = {
            Mode.IMG2IMG: ("init_image",),
            Mode.INPAINT: ("init_image", "mask_image"),
            Mode.UPSCALE: ("init_image",),
            Mode.WORKFLOW: ("workflow",),
        }.get(self.mode, ())
        for field in needs:
            if not getattr(self, field):
                msg = f"{field}: needed for mode {self.mode.value}"
                raise ValueError(msg)
        if self.workflow and self.mode is not Mode.WORKFLOW:
            msg = "mode: a workflow is given, so the mode must be workflow"
            raise ValueError(msg)
        if self.overrides and not self.workflow:
            msg = "overrides: they name inputs of a workflow, and there is none"
            raise ValueError(msg)
        if self.checkpoint and self.unet:
            msg = "unet: give either a checkpoint or a separate image model, not both"
            raise ValueError(msg)
        if self.seed >= 0 and self.seed + self.count - 1 > LARGEST_SEED:
            msg = f"seed: the last picture's seed would exceed {LARGEST_SEED}"
            raise ValueError(msg)
        return self

    @property
    def app_types(self) -> frozenset[str]:
        """Kinds of server that can take this job at all; empty: every kind."""
        if self.mode is Mode.WORKFLOW:
            return frozenset({"comfyui"})
        if self.alwayson_scripts:
            return frozenset({"forge"})
        return self.sections.present

    @property
    def keeps_own_seeds(self) -> bool:
        """Whether a workflow runs with the seeds it brings: none is asked for, one picture is."""
        return self.mode is Mode.WORKFLOW and self.seed < 0 and self.count == 1

    def expired(self, now: datetime) -> bool:
        """Whether it may no longer start; `now` must carry a time zone."""
        return self.expires_at is not None and now >= self.expires_at

    def dumped(self) -> dict[str, Any]:
        """Return plain JSON data without what equals the defaults, but with the version."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        return {"schema_version": self.schema_version, **data}


def parse_request(data: Mapping[str, Any] | GenerationRequest) -> GenerationRequest:
    """Validate a request from anywhere, an older release included.

    Raises:
        BadRequest: The first problem, naming the field and what is allowed.
    """
    if isinstance(data, GenerationRequest):
        return data
    current = migrate(data)
    refuse_unstorable(current)
    try:
        return GenerationRequest.model_validate(current)
    except ValidationError as error:
        raise _refusal(error, current) from None


Migration = Callable[[dict[str, Any]], dict[str, Any]]

MIGRATIONS: dict[int, Migration] = {}
"""For each older version, what brings a request of it to the version after it."""


def migrate(data: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a stored request of an older release to today's shape.

    Raises:
        BadRequest: It was written by a newer release, or is no request at all.
    """
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - from JSON
        raise BadRequest(
            "request", "fields with values are needed, as in {'prompt': 'a lighthouse'}"
        )
    version = data.get("schema_version", SCHEMA_VERSION)
    oldest = min(MIGRATIONS, default=SCHEMA_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version < oldest:
        raise BadRequest("schema_version", "not a version number", [str(SCHEMA_VERSION)])
    if version > SCHEMA_VERSION:
        raise BadRequest(
            "schema_version",
            f"written by a newer release ({version}); update StableQueue",
            [str(SCHEMA_VERSION)],
        )
    current = dict(data)
    while version < SCHEMA_VERSION:
        current = MIGRATIONS[version](current)
        version += 1
        current["schema_version"] = version
    return current


def _refusal(error: ValidationError, data: Mapping[str, Any]) -> BadRequest:
    first = error.errors(include_url=False)[0]
    place = field_parts(first["loc"], data, missing=first["type"] == "missing")
    field = dotted(place)
    message = one_line(first["msg"].removeprefix("Value error, "))
    if not place and ": " in message:  # our own model validator names the field itself
        field, message = message.split(": ", 1)
    if first["type"] == "extra_forbidden":
        known = sorted(GenerationRequest.model_fields) if len(place) == 1 else []
        return BadRequest(field, "there is no such field", known)
    return BadRequest(field or "request", message)
