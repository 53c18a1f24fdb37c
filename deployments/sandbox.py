"""The built-in server, saved like any other: what a first start has to work with."""

from collections.abc import Sequence

from stablequeue.prefect_api import PrefectApi
from stablequeue.server_blocks import SERVER_BLOCK, save_server, saved_servers
from stablequeue.servers import ServerConfig

ALIASES = {"sandbox": "comfyui", "sandbox-forge": "forge"}
"""One built-in server, spoken to in two protocols."""


def moved(servers: Sequence[ServerConfig], url: str) -> list[ServerConfig]:
    """Return the saved sandboxes whose address is not `url`, as they should be."""
    return [
        ServerConfig.model_validate({**server.model_dump(), "url": url})
        for server in servers
        if server.sandbox and server.base_url != url.rstrip("/")
    ]


def save_sandbox(api: PrefectApi, url: str) -> list[str]:
    """Save the sandbox when no server is saved, or its address when that has changed.

    Args:
        api: Prefect's API, which knows the block type.
        url: Where it is reached.

    Returns:
        What was done, one line each.
    """
    if api.block_documents(SERVER_BLOCK):
        changes = moved(saved_servers(api), url)
    else:
        changes = [
            ServerConfig.model_validate(
                {"alias": alias, "type": kind, "url": url, "sandbox": True, "card": "sandbox/0"}
            )
            for alias, kind in ALIASES.items()
        ]
    for config in changes:
        save_server(api, config)
    return [f"server {config.alias} at {config.base_url}" for config in changes]
