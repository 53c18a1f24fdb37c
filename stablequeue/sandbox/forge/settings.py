"""How Forge's half is set up: the counterpart of the flags a real server is started with."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

FORGE = "forge"
AUTOMATIC1111 = "automatic1111"

_VERSIONS = {FORGE: "f2.0.1v1.10.1-1.10.1", AUTOMATIC1111: "v1.10.1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeSettings:
    """What `SandboxConfig.forge` may hold.

    Attributes:
        flavour: `forge` or `automatic1111`.
        api: `--api`; without it `/sdapi` is 404.
        api_auth: `--api-auth`, `user:password`, several separated by commas.
        gradio_auth: `--gradio-auth`, in the same form.
        nowebui: `--nowebui`: neither `/internal` nor Gradio nor `/file=`.
        api_server_stop: `--api-server-stop`: the routes that stop and kill the server exist.
        cpu: Without a graphics card, as the recorded server.
        port_given: `--port` was given, so `/sdapi/v1/cmd-flags` fails.
        late_routes_s: Seconds after the boot in which extensions' routes are still 404.
        workers: Requests worked on at once; waiting ones count.
        heartbeat_s: Seconds between signs of life in Gradio's event streams.
        stealth_scan: Reading the infotext of an RGB picture that has none takes as long as on the
            recorded server: 0.4 s at 256 x 256 pixels, 6 s at 512, growing with the square.
        checkpoint: Title of the one selected at the first boot; empty: the first.
    """

    flavour: str = FORGE
    api: bool = True
    api_auth: str = ""
    gradio_auth: str = ""
    nowebui: bool = False
    api_server_stop: bool = False
    cpu: bool = False
    port_given: bool = True
    late_routes_s: float = 0.0
    workers: int = 40
    stealth_scan: bool = True
    heartbeat_s: float = 15.0
    checkpoint: str = ""

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "ForgeSettings":
        """Read `SandboxConfig.forge`.

        Raises:
            ValueError: A key or the flavour is unknown.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown:
            message = f"Forge's sandbox has no setting {', '.join(unknown)}; use {', '.join(known)}"
            raise ValueError(message)
        settings = cls(**data)
        if settings.flavour not in _VERSIONS:
            message = f"unknown flavour {settings.flavour!r}; use {' or '.join(_VERSIONS)}"
            raise ValueError(message)
        return settings

    @property
    def is_forge(self) -> bool:
        """Forge, not AUTOMATIC1111."""
        return self.flavour == FORGE

    @property
    def version(self) -> str:
        """Version as infotexts name it."""
        return _VERSIONS[self.flavour]
