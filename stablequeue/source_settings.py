"""How each source of model files is set up. One object of `SourceSettings` holds all."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr

_DAY_S = 86_400.0


class _Settings(BaseModel):
    # Built once, as a part of all settings: every command waits for that.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    loopback: bool = Field(
        default=False, description="Also this machine, by plain http: for a mirror, and for tests."
    )


class CivitaiSettings(_Settings):
    """Civitai."""

    base_url: str = Field(default="https://civitai.com", description="Asked first.")
    fallback_url: str = Field(
        default="https://civitai.red",
        description="Asked for what is not at the first. Empty: none.",
    )
    token: SecretStr = Field(
        default=SecretStr(""), description="API key of an account; some downloads need one."
    )
    token_hosts: tuple[str, ...] = Field(
        default=("civitai.com", "civitai.red"), description="The only hosts that see the key."
    )
    hosts: tuple[str, ...] = Field(
        default=(
            "civitai.com",
            "civitai.red",
            "*.civitai.com",
            "*.civitai.red",
            "*.r2.cloudflarestorage.com",
        ),
        description="Hosts of the API and of its storage.",
    )
    requests_per_s: float = Field(default=1.0, gt=0, description="To the API, on the average.")
    burst: int = Field(default=5, ge=1, description="Requests at once after a quiet while.")
    cache_s: float = Field(
        default=3600.0, ge=0, description="How long an answer is used unasked. 0: not at all."
    )
    missing_s: float = Field(
        default=3600.0,
        ge=0,
        le=_DAY_S,
        description="How long 'not found' is believed; what was published since shows after it.",
    )


class HuggingFaceSettings(_Settings):
    """Hugging Face."""

    base_url: str = Field(default="https://huggingface.co", description="Base URL.")
    token: SecretStr = Field(default=SecretStr(""), description="Access token, for gated models.")
    token_hosts: tuple[str, ...] = Field(
        default=("huggingface.co",), description="The only hosts that see the token."
    )
    hosts: tuple[str, ...] = Field(
        default=("huggingface.co", "hf.co", "*.huggingface.co", "*.hf.co"),
        description="Hosts of the hub and of its storage.",
    )


class DirectSettings(_Settings):
    """Plain URLs."""

    hosts: tuple[str, ...] = Field(
        default=("github.com", "*.githubusercontent.com", "modelscope.cn", "*.modelscope.cn"),
        description="Hosts files are fetched from, redirects included. *: any on the internet.",
    )


class SourceSettings(BaseModel):
    """All sources."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    civitai: CivitaiSettings = Field(default_factory=CivitaiSettings)
    huggingface: HuggingFaceSettings = Field(default_factory=HuggingFaceSettings)
    direct: DirectSettings = Field(default_factory=DirectSettings)
