"""What we know of a generation server before asking it: its saved configuration."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator

ANY = "any"
DOWNLOADS = "downloads"
"""The work pool of downloads; its limit is how many run at once, on all hosts together."""

ALIAS_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$"

Alias = Annotated[str, Field(pattern=ALIAS_PATTERN)]


class ServerConfig(BaseModel):
    """One generation server as saved; the block `generation-server` has the same fields.

    `alias` names the server's block document, its work pool and its deployment, so it is made of
    lower case letters, digits and hyphens (Prefect's rule for block document names).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alias: Alias
    type: str = Field(description="Protocol: comfyui or forge (also AUTOMATIC1111 and its forks).")
    url: HttpUrl = Field(description="Base URL, e.g. http://127.0.0.1:8188. No credentials in it.")
    username: str = Field(default="", description="HTTP Basic user (Forge: --api-auth).")
    password: SecretStr = Field(default=SecretStr(""), description="HTTP Basic password.")
    token: SecretStr = Field(default=SecretStr(""), description="Bearer token of a proxy.")
    ui_username: str = Field(default="", description="Forge: --gradio-auth user, for /file=.")
    ui_password: SecretStr = Field(default=SecretStr(""), description="Forge: its password.")
    card: str = Field(
        default="",
        description="The graphics card it uses, as HOST/GPU. Servers on one card never generate"
        " at once. Empty: a card of its own.",
    )
    store: str = Field(default="", description="Store for its pictures. Empty: the default one.")
    connect_timeout_s: float = Field(
        default=10.0, gt=0, le=600, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds to wait for short answers. Generating has no limit.",
    )
    stall_after_s: float = Field(
        default=300.0,
        gt=0,
        description="Seconds without any progress after which a job counts as stalled, at least;"
        " slow steps lengthen it.",
    )
    sandbox: bool = Field(default=False, description="Our own built-in sandbox server.")
    models_from: Literal["none", "same", "mapped", "worker"] = Field(
        default="none",
        description="How model files reach it. none: not at all, what it lacks is not fetched;"
        " same: its model folders are those of the library; mapped: it sees them elsewhere;"
        " worker: they are those of the machine its worker runs on, and of no other.",
    )
    model_paths: list[str] = Field(
        default_factory=list[str],
        description="For mapped: LOCAL=REMOTE, where a folder here is for the server, e.g."
        r" /srv/models=D:\models.",
    )

    @field_validator("url")
    @classmethod
    def _no_credentials(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password:
            msg = "put user and password into their own fields, not into the URL"
            raise ValueError(msg)
        if url.query or url.fragment:
            msg = "give the base URL only, without ? or #"
            raise ValueError(msg)
        return url

    @field_validator("model_paths")
    @classmethod
    def _both_sides(cls, paths: list[str]) -> list[str]:
        for path in paths:
            local, equals, remote = path.partition("=")
            if not equals or not local.strip() or not remote.strip():
                msg = f"{path[:200]!r} is not LOCAL=REMOTE, e.g. /srv/models=D:\\models"
                raise ValueError(msg)
        return paths

    @property
    def base_url(self) -> str:
        """The URL without a trailing slash."""
        return str(self.url).rstrip("/")

    @property
    def card_key(self) -> str:
        """Name of the card for locks: its own when none was given."""
        return self.card or f"server/{self.alias}"


def alias_from(text: str) -> str:
    """Return `text` made into an alias, e.g. `My GPU #1` -> `my-gpu-1`; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:48].strip("-")
