"""Saved servers: block documents of type `generation-server`, over HTTP and without Prefect.

What the command line writes here is what the form in Prefect's UI shows, and the other way round.
`deployments/` registers the block type and makes pool and deployment of each saved server.
"""

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from stablequeue.errors import NotFound, SettingsError
from stablequeue.prefect_api import BlockDocument, PrefectApi
from stablequeue.servers import ANY, DOWNLOADS, ServerConfig

logger = logging.getLogger("stablequeue.servers")

SERVER_BLOCK = "generation-server"
"""Slug of the block type."""

RESERVED = frozenset({ANY, DOWNLOADS, "default", "housekeeping"})
"""Names no server can have: they are pools and deployments of their own."""


def saved_servers(api: PrefectApi) -> list[ServerConfig]:
    """Return the saved servers with their secrets, by alias.

    One whose saved values do not fit (the form in Prefect's UI checks less than we do) is left
    out, with a warning in the log that names it and the field.
    """
    servers: list[ServerConfig] = []
    for document in api.block_documents(SERVER_BLOCK, secrets=True):
        try:
            servers.append(config_of(document.name, document.data))
        except SettingsError as error:
            logger.warning("%s", error)
    return servers


def saved_server(api: PrefectApi, alias: str) -> ServerConfig:
    """Return one saved server with its secrets.

    Raises:
        NotFound: There is none of this alias.
        SettingsError: Its saved values do not fit.
    """
    return _config(_document(api, alias))


def save_server(api: PrefectApi, config: ServerConfig) -> None:
    """Save a server, or change the one of the same alias to exactly this.

    Raises:
        SettingsError: The alias is one of our own names.
        NotFound: The block type is not registered yet (`up` does it).
    """
    if config.alias in RESERVED:
        message = f"{config.alias!r} is a name of StableQueue's own; choose another alias"
        raise SettingsError(message)
    api.save_block_document(SERVER_BLOCK, config.alias, block_data(config))


def remove_server(api: PrefectApi, alias: str) -> None:
    """Forget a saved server; `deployments/` then takes its pool and deployment away.

    Raises:
        NotFound: There is none of this alias.
    """
    _document(api, alias)
    api.delete_block_document(SERVER_BLOCK, alias)


def block_data(config: ServerConfig) -> dict[str, Any]:
    """Return the data of the block document, secrets in plain text: for Prefect's API only."""
    data = config.model_dump(mode="json", exclude={"alias"})
    for name, value in config:
        if isinstance(value, SecretStr):
            data[name] = value.get_secret_value()
    return data


def config_of(alias: str, data: Mapping[str, Any]) -> ServerConfig:
    """Return the configuration a saved block holds.

    Raises:
        SettingsError: The values do not fit; names the server and the first wrong field.
    """
    known = {name: value for name, value in data.items() if name in ServerConfig.model_fields}
    try:
        return ServerConfig.model_validate({**known, "alias": alias})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = f"saved server {alias!r}, {field}: {first['msg']}; correct it in Prefect's UI"
        raise SettingsError(f"{message} (Blocks) or with: stablequeue servers add") from None


def _config(document: BlockDocument) -> ServerConfig:
    return config_of(document.name, document.data)


def _document(api: PrefectApi, alias: str) -> BlockDocument:
    try:
        return api.block_document(SERVER_BLOCK, alias, secrets=True)
    except NotFound:
        message = f"there is no server {alias!r}; list them with: stablequeue servers ls"
        raise NotFound(message) from None
