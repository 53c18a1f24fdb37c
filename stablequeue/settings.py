"""Settings: defaults < YAML file < environment < command line, each value with its origin.

Everything this installation keeps lies below `home` unless a setting says otherwise. The file is
`stablequeue.yaml` in `home`, or what `STABLEQUEUE_CONFIG` names.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from stablequeue.errors import SettingsError
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.source_settings import SourceSettings

PREFIX = "STABLEQUEUE_"
FILE_NAME = "stablequeue.yaml"
ALIASES = {
    # Names the user's other tools already set.
    "home": ("CONFIG_DATA_PATH",),
    "pictures": ("STABLE_DIFFUSION_SAVE_PATH",),
    "files_port": ("PORT",),
    "sources.civitai.token": ("CIVITAI_TOKEN", "CIVITAI_API_KEY"),
    "sources.huggingface.token": ("HF_TOKEN",),
}
NESTED = {
    # Names in the environment of settings within a section, without our prefix.
    "models.installations": "MODEL_INSTALLATIONS",
    "models.most_gb": "MODEL_MOST_GB",
    "sources.civitai.token": "CIVITAI_TOKEN",
    "sources.huggingface.token": "HF_TOKEN",
}
PATH_LISTS = frozenset({"input_folders", "models.installations", "models.extra_model_paths"})
"""Settings that are several folders or files, written as in PATH where they are one text."""


class S3Settings(BaseModel):
    """Where pictures go when they go to S3 or anything that speaks it."""

    # Sections are built once, as a part of all settings: every command waits for that.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    bucket: str = Field(default="", description="Bucket. Empty: pictures go to the folder.")
    prefix: str = Field(default="", description="Put before every key.")
    endpoint_url: str = Field(default="", description="For S3-compatible stores.")
    region: str = Field(default="", description="Empty: the SDK's own default.")
    access_key: str = Field(default="", description="Empty: the SDK's own credential chain.")
    secret_key: SecretStr = Field(default=SecretStr(""), description="Secret access key.")


class ModelSettings(BaseModel):
    """Where this host's model files lie, and where missing ones go."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    folders: dict[str, list[Path]] = Field(
        default_factory=dict[str, list[Path]],
        description="Folders by type: checkpoint, lora, embedding, vae, controlnet, upscaler, unet,"
        " text_encoder. A missing file goes into the first of its type.",
    )
    installations: list[Path] = Field(
        default_factory=list[Path],
        description="Folders of ComfyUI, Forge or AUTOMATIC1111; their model folders are found.",
    )
    extra_model_paths: list[Path] = Field(
        default_factory=list[Path], description="Files like ComfyUI's extra_model_paths.yaml."
    )
    locks: Path | None = Field(
        default=None,
        description="Folder of lock files of downloads; on a disk that several hosts share, one"
        " that all of them reach. Empty: home/locks/models.",
    )
    most_gb: float = Field(
        default=0.0, ge=0, description="Size that eviction keeps the library under. 0: no limit."
    )

    @field_validator("folders")
    @classmethod
    def _known_types(cls, folders: dict[str, list[Path]]) -> dict[str, list[Path]]:
        for name in folders:
            if type_of(name) is None:
                msg = f"there is no type of models {name[:50]!r}; there are: {', '.join(ModelType)}"
                raise ValueError(msg)
        return folders


class Settings(BaseModel):
    """This installation's settings; make one with `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(description="Folder for everything StableQueue keeps.")
    catalogue_url: str = Field(
        default="", description="SQLAlchemy URL. Empty: SQLite in home. postgresql+psycopg://..."
    )
    pictures: Path | None = Field(
        default=None, description="Folder for finished pictures. Empty: home/pictures."
    )
    s3: S3Settings = Field(default_factory=S3Settings)
    models: ModelSettings = Field(default_factory=ModelSettings)
    sources: SourceSettings = Field(default_factory=SourceSettings)
    prefect_api_url: str = Field(
        default="", description="A Prefect API somebody else runs. Empty: `up` starts our own."
    )
    prefect_auth: SecretStr = Field(
        default=SecretStr(""), description="USER:PASSWORD for that API. Empty: our own, generated."
    )
    prefect_port: int = Field(default=4200, ge=0, le=65535, description="Our Prefect server.")
    files_port: int = Field(default=4201, ge=0, le=65535, description="Thumbnails over http.")
    files_url: str = Field(
        default="", description="How browsers reach that port. Empty: http://127.0.0.1:PORT."
    )
    sandbox_port: int = Field(default=4202, ge=0, le=65535, description="The sandbox server.")
    input_folders: list[Path] = Field(
        default_factory=list[Path],
        description="Folders from which a run form in Prefect's UI may take input pictures.",
    )
    keep_runs_days: float = Field(
        default=30.0, gt=0, description="Days a finished run stays in Prefect."
    )
    keep_trash_days: float = Field(
        default=7.0, ge=0, description="Days a deleted picture can be brought back."
    )
    log_level: str = Field(
        default="INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="Least severe lines in the logs: DEBUG, INFO, WARNING or ERROR.",
    )

    @cached_property
    def catalogue(self) -> str:
        """URL of the catalogue's database."""
        return self.catalogue_url or f"sqlite:///{self.home / 'catalogue.db'}"

    @cached_property
    def pictures_folder(self) -> Path:
        """Folder of the built-in folder store."""
        return self.pictures or self.home / "pictures"

    @cached_property
    def spool(self) -> Path:
        """Folder of results fetched but not yet stored."""
        return self.home / "spool"

    @cached_property
    def inputs(self) -> Path:
        """Folder of input pictures, by hash."""
        return self.home / "inputs"

    @cached_property
    def thumbnails(self) -> Path:
        """Folder of thumbnails, by hash of the picture."""
        return self.home / "thumbnails"

    @cached_property
    def locks(self) -> Path:
        """Folder of lock files, one a card."""
        return self.home / "locks"

    @cached_property
    def model_locks(self) -> Path:
        """Folder of lock files, one a model file that is fetched."""
        return self.models.locks or self.locks / "models"

    @cached_property
    def source_answers(self) -> Path:
        """Folder of what Civitai answered, so that the same is not asked twice."""
        return self.home / "cache" / "models"

    @cached_property
    def run_folder(self) -> Path:
        """Folder of what exists only while `up` runs: ports, pids."""
        return self.home / "run"

    @cached_property
    def secrets_file(self) -> Path:
        """File (0600) with what was generated at first start."""
        return self.home / "secrets.json"


def load(overrides: dict[str, Any] | None = None) -> Settings:
    """Return the settings in force; `overrides` come from the command line.

    Raises:
        SettingsError: A value or the file is wrong; says which and where it came from.
    """
    return load_with_origins(overrides)[0]


def load_with_origins(
    overrides: dict[str, Any] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Return the settings and where each value came from; `origin_of` reads that.

    Args:
        overrides: From the command line; dots lead into sections, as in `models.most_gb`.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    environment = _from_environment()
    home = given.get("home") or environment.get("home", (None, ""))[0] or _default_home()
    file = Path(os.environ.get(PREFIX + "CONFIG") or Path(home) / FILE_NAME)

    values = _from_file(file)
    origins = {**dict.fromkeys(Settings.model_fields, "default"), **_places(values, str(file))}
    for name, (value, variable) in environment.items():
        _put(values, name, value)
        origins[name] = f"environment {variable}"
    for name, value in given.items():
        _put(values, name, value)
        origins[name] = "command line"
    values["home"] = _home(values.get("home", home), origins["home"])
    try:
        return Settings.model_validate(values), origins
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        message = f"setting {name} (from {origin_of(name, origins)}): {reason}"
        raise SettingsError(message) from None


def origin_of(name: str, origins: dict[str, str]) -> str:
    """Return where a setting's value came from; of a part of a value, where that came from.

    Args:
        name: Dots lead into sections.
        origins: From `load_with_origins`.
    """
    while name not in origins and "." in name:
        name = name.rpartition(".")[0]
    return origins.get(name, "default")


def _places(values: Any, origin: str, within: str = "") -> dict[str, str]:
    """Return the dotted names of everything given, sections included."""
    if not isinstance(values, dict):
        return {}
    found: dict[str, str] = {}
    for key, value in cast("dict[Any, Any]", values).items():
        name = f"{within}{key}"
        found |= {name: origin, **_places(value, origin, f"{name}.")}
    return found


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a value whose name may lead into sections; what stands in the way is replaced."""
    *sections, last = name.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
        values = values[section]
    values[last] = value


def _home(value: Any, origin: str) -> Path:
    try:
        return Path(value).expanduser().absolute()
    except (TypeError, RuntimeError) as error:  # not a text; the home of nobody
        message = f"setting home (from {origin}): {str(value)[:80]!r} is not a folder"
        raise SettingsError(message) from error


def _default_home() -> Path:
    return user_data_path("stablequeue", appauthor=False)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise SettingsError(message) from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        message = f"{file}{line}: not valid YAML"
        raise SettingsError(message) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        message = f"{file}: expected `name: value` lines"
        raise SettingsError(message)
    return {str(key): value for key, value in cast("dict[Any, Any]", data).items()}


def _from_environment() -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for setting, names in environment_names().items():
        for name in names:
            if (value := os.environ.get(name, "")) != "":
                parsed: Any = value.split(os.pathsep) if setting in PATH_LISTS else value
                found[setting] = (parsed, name)
                break
    return found


def environment_names() -> dict[str, tuple[str, ...]]:
    """Return the names each setting has in the environment, the one that counts most first."""
    sections = {"s3", "models", "sources"}
    own = {field: field.upper() for field in Settings.model_fields if field not in sections}
    own |= {f"s3.{field}": f"S3_{field.upper()}" for field in S3Settings.model_fields}
    own |= NESTED
    return {setting: (PREFIX + name, *ALIASES.get(setting, ())) for setting, name in own.items()}
