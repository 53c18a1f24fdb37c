"""What Civitai's API answers, read leniently: open enums, every field optional.

Source: the reference examples (September 2026) and Civitai's server source (v5.0.2257).
"""

from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from stablequeue.models.sources.lenient import (
    Flag,
    JsonMap,
    Lenient,
    Mappings,
    Number,
    Numbers,
    Real,
    Text,
    TextMap,
    Texts,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""Of nothing; trainers wrote it into files, and Civitai finds an unrelated LoRA by it."""

_SHA256_LENGTH = 64
_LARGEST_KB = 1 << 40


class _WithRaw(Lenient):
    """Keeps the object as it came, for the sidecar files, and which base URL it came from."""

    raw: JsonMap = Field(default_factory=dict[str, Any], repr=False)
    found_at: str = ""

    @model_validator(mode="before")
    @classmethod
    def _keep_raw(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        return {**given, "raw": given, "foundAt": "", "found_at": ""}


class CivitaiFile(Lenient):
    """A file of a version. Two files of one version may have the same name."""

    id: Number = 0
    name: Text = ""
    type: Text = ""
    size_kb: Real = Field(default=0.0, alias="sizeKB")
    metadata: JsonMap = Field(default_factory=dict[str, Any])
    pickle_scan_result: Text = ""
    virus_scan_result: Text = ""
    hashes: TextMap = Field(default_factory=dict[str, str])
    primary: Flag = False

    @property
    def size(self) -> int:
        """Bytes; 0: not told."""
        return round(self.size_kb * 1024) if 0 < self.size_kb < _LARGEST_KB else 0

    @property
    def sha256(self) -> str:
        """Lower case hex; empty: not scanned yet, or nonsense."""
        found = self.hashes.get("SHA256", "").casefold()
        fits = len(found) == _SHA256_LENGTH and found != EMPTY_SHA256
        return found if fits and set(found) <= set("0123456789abcdef") else ""

    def wish(self, name: str) -> str:
        """Return one of the metadata: `format`, `size` (full, pruned), `fp`, `quantType`."""
        value = self.metadata.get(name)
        return value if isinstance(value, str) else ""

    def has_hash(self, wanted: str) -> bool:
        """Whether a hash of any of its kinds is this file's; case does not matter."""
        upper = wanted.upper()
        return bool(upper) and upper in {value.upper() for value in self.hashes.values()}


class CivitaiPicture(Lenient):
    """An example picture of a version; `type` may be `video`."""

    url: Text = ""
    type: Text = ""
    nsfw_level: Number = 0
    width: Number = 0
    height: Number = 0


class ModelBrief(Lenient):
    """What a version tells about its model."""

    name: Text = ""
    type: Text = ""
    mode: Text = ""
    nsfw: Flag = False


class CivitaiVersion(_WithRaw):
    """A version of a model; entries inside a model have no `model` of their own."""

    id: Number = 0
    model_id: Number = 0
    name: Text = ""
    base_model: Text = ""
    air: Text = ""
    status: Text = ""
    availability: Text = ""
    usage_control: Text = ""
    published_at: Text = ""
    early_access_ends_at: Text = ""
    paid_access: JsonMap = Field(default_factory=dict[str, Any])
    trained_words: Texts = Field(default_factory=list[str])
    files: Annotated[list[CivitaiFile], Mappings] = Field(default_factory=list[CivitaiFile])
    images: Annotated[list[CivitaiPicture], Mappings] = Field(default_factory=list[CivitaiPicture])
    model: ModelBrief = Field(default_factory=ModelBrief)

    @model_validator(mode="before")
    @classmethod
    def _model_is_an_object(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        fits = isinstance(given.get("model", {}), dict | ModelBrief)
        return given if fits else {**given, "model": {}}

    @property
    def early_until(self) -> datetime | None:
        """When it becomes free for all, in UTC; None: it is, or never will be."""
        found = self.paid_access.get("endsAt") or self.early_access_ends_at
        try:
            until = datetime.fromisoformat(str(found))
        except ValueError:
            return None
        until = until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)
        return until if until > datetime.now(UTC) else None

    @property
    def for_sale(self) -> bool:
        """Whether it costs something now."""
        return self.paid_access.get("permanent") is True or self.early_until is not None


class CivitaiModel(_WithRaw):
    """A model with its versions, the newest first."""

    id: Number = 0
    name: Text = ""
    type: Text = ""
    description: Text = ""
    mode: Text = ""
    nsfw: Flag = False
    tags: Texts = Field(default_factory=list[str])
    creator: JsonMap = Field(default_factory=dict[str, Any])
    stats: JsonMap = Field(default_factory=dict[str, Any])
    allow_no_credit: Flag = False
    allow_commercial_use: Texts = Field(default_factory=list[str])
    allow_derivatives: Flag = False
    allow_different_license: Flag = False
    model_versions: Annotated[list[CivitaiVersion], Mappings] = Field(
        default_factory=list[CivitaiVersion]
    )

    def version(self, version_id: int = 0) -> CivitaiVersion | None:
        """Return one version, or the newest, knowing its model as a version asked for alone does.

        Entries inside a model have neither `model` nor `modelId` in some releases.
        """
        for version in self.model_versions:
            if version_id in (0, version.id):
                brief = ModelBrief(name=self.name, type=self.type, mode=self.mode, nsfw=self.nsfw)
                known = {"model": brief, "model_id": self.id, "found_at": self.found_at}
                return version.model_copy(update=known)
        return None


class CivitaiImage(_WithRaw):
    """A picture of the site, with what it was made with."""

    id: Number = 0
    url: Text = ""
    type: Text = ""
    width: Number = 0
    height: Number = 0
    base_model: Text = ""
    model_version_ids: Numbers = Field(default_factory=list[int])
    meta: JsonMap = Field(default_factory=dict[str, Any])

    @property
    def generation(self) -> dict[str, Any]:
        """Its generation data; flat, though some releases wrap it in `{id, meta}`."""
        inner = self.meta.get("meta")
        return cast("dict[str, Any]", inner) if isinstance(inner, dict) else self.meta


class HashIds(Lenient):
    """Which version has a file with a SHA-256."""

    model_version_id: Number = 0
    model_id: Number = 0
    hash: Text = ""


class Me(Lenient):
    """The account of a key."""

    id: Number = 0
    username: Text = ""
    tier: Text = ""
    status: Text = ""
    is_member: Flag = False
