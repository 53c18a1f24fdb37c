"""Block `generation-server`: one ComfyUI, Forge or AUTOMATIC1111, editable in Prefect's UI.

The name of the block document is the server's alias; its fields are those of `ServerConfig`.
"""

from typing import ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, HttpUrl, SecretStr

from blocks.fields import same_field, title_of
from stablequeue.server_blocks import SERVER_BLOCK, config_of
from stablequeue.servers import ServerConfig


class GenerationServer(Block):
    """A server that makes pictures. Its name becomes a work pool and a deployment."""

    model_config: ClassVar[ConfigDict] = ConfigDict(field_title_generator=title_of)

    _block_type_name = "Generation server"
    _block_type_slug = SERVER_BLOCK
    _description = "A ComfyUI, Forge or AUTOMATIC1111 that StableQueue sends jobs to."

    type: str = same_field(ServerConfig, "type")
    url: HttpUrl = same_field(ServerConfig, "url")
    username: str = same_field(ServerConfig, "username")
    password: SecretStr = same_field(ServerConfig, "password")
    token: SecretStr = same_field(ServerConfig, "token")
    ui_username: str = same_field(ServerConfig, "ui_username")
    ui_password: SecretStr = same_field(ServerConfig, "ui_password")
    card: str = same_field(ServerConfig, "card")
    store: str = same_field(ServerConfig, "store")
    connect_timeout_s: float = same_field(ServerConfig, "connect_timeout_s")
    read_timeout_s: float = same_field(ServerConfig, "read_timeout_s")
    stall_after_s: float = same_field(ServerConfig, "stall_after_s")
    sandbox: bool = same_field(ServerConfig, "sandbox")
    models_from: Literal["none", "same", "mapped", "worker"] = same_field(
        ServerConfig, "models_from"
    )
    model_paths: list[str] = same_field(ServerConfig, "model_paths")

    def config(self) -> ServerConfig:
        """Return the server's configuration.

        Raises:
            SettingsError: The saved values do not fit, e.g. a URL with a password in it.
        """
        data = {name: getattr(self, name) for name in type(self).model_fields}
        return config_of(self._block_document_name or "", data)
