"""Blocks mirror the configuration models, whichever side wrote them."""

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from prefect.blocks.core import Block
from pydantic import BaseModel, SecretStr, ValidationError

from blocks.server import GenerationServer
from blocks.store import PictureBucket, PictureFolder
from stablequeue.errors import NotFound, SettingsError
from stablequeue.prefect_api import PrefectApi
from stablequeue.server_blocks import (
    SERVER_BLOCK,
    remove_server,
    save_server,
    saved_server,
    saved_servers,
)
from stablequeue.servers import ServerConfig
from stablequeue.storage import FolderStoreConfig, S3StoreConfig
from stablequeue.store_blocks import BUCKET_BLOCK, FOLDER_BLOCK, saved_store, store_of
from tests.support.prefect import PrefectServer

PAIRS: list[tuple[type[Block], type[BaseModel], set[str]]] = [
    (GenerationServer, ServerConfig, {"alias"}),
    (PictureFolder, FolderStoreConfig, {"name", "type"}),
    (PictureBucket, S3StoreConfig, {"name", "type"}),
]
needs_prefect = [pytest.mark.prefect, pytest.mark.timeout(180)]


@pytest.mark.parametrize(("block", "model", "named_by_the_document"), PAIRS)
def test_a_block_has_the_fields_of_its_configuration(
    block: type[Block], model: type[BaseModel], named_by_the_document: set[str]
) -> None:
    expected = {name for name in model.model_fields if name not in named_by_the_document}
    assert set(block.model_fields) == expected
    for name in expected:
        ours, theirs = block.model_fields[name], model.model_fields[name]
        assert ours.annotation == theirs.annotation, name
        assert ours.default == theirs.default, name
        assert ours.description == theirs.description, name
        assert ours.metadata == theirs.metadata, name


@pytest.mark.parametrize("block", [pair[0] for pair in PAIRS])
def test_a_form_has_titles_descriptions_and_no_tabs(block: type[Block]) -> None:
    for name, field in block.model_json_schema()["properties"].items():
        assert "anyOf" not in field, name
        assert "_" not in field["title"], name
        assert field["title"][0].isupper(), name


def test_secrets_are_password_fields() -> None:
    properties = GenerationServer.model_json_schema()["properties"]
    secret = {name for name, field in properties.items() if field.get("format") == "password"}
    assert secret == {"password", "token", "ui_password"}


def test_limits_hold_in_the_block_too() -> None:
    with pytest.raises(ValidationError):
        GenerationServer(type="forge", url="http://127.0.0.1:7860", read_timeout_s=-1)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def registered(prefect_server: PrefectServer) -> Iterator[None]:
    with prefect_server.in_this_process():
        for block in (GenerationServer, PictureFolder, PictureBucket):
            block.register_type_and_schema()
        yield


def _config(**changes: Any) -> ServerConfig:
    values: dict[str, Any] = {
        "alias": f"s-{uuid4().hex[:8]}",
        "type": "forge",
        "url": "http://127.0.0.1:7860/sub",
        "username": "me",
        "password": "canary-password",
        "card": "host/0",
        "stall_after_s": 12.5,
    }
    return ServerConfig.model_validate({**values, **changes})


class TestOverHttp:
    """What the command line writes is what flows and forms read."""

    pytestmark: ClassVar = [*needs_prefect, pytest.mark.usefixtures("registered")]

    def test_a_server_saved_by_the_command_line_loads_as_a_block(
        self, prefect_api: PrefectApi
    ) -> None:
        config = _config()
        save_server(prefect_api, config)
        block = GenerationServer.load(config.alias)
        assert isinstance(block, GenerationServer)
        assert block.config() == config
        assert saved_server(prefect_api, config.alias) == config
        assert config in saved_servers(prefect_api)

    def test_a_server_saved_as_a_block_is_read_by_the_command_line(
        self, prefect_api: PrefectApi
    ) -> None:
        config = _config()
        data = {name: getattr(config, name) for name in GenerationServer.model_fields}
        GenerationServer(**data).save(config.alias)
        assert saved_server(prefect_api, config.alias) == config

    def test_saving_again_replaces_everything(self, prefect_api: PrefectApi) -> None:
        first = _config()
        save_server(prefect_api, first)
        second = _config(alias=first.alias, password="", card="")
        save_server(prefect_api, second)
        found = saved_server(prefect_api, first.alias)
        assert found == second
        assert found.password == SecretStr("")

    def test_secrets_are_not_shown_unless_asked_for(self, prefect_api: PrefectApi) -> None:
        config = _config()
        save_server(prefect_api, config)
        document = prefect_api.block_document(SERVER_BLOCK, config.alias)
        assert "canary-password" not in str(document.data)
        assert "canary" not in repr(saved_server(prefect_api, config.alias))

    def test_a_damaged_block_is_named_and_the_others_still_work(
        self,
        prefect_api: PrefectApi,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        good, bad = _config(), f"bad-{uuid4().hex[:8]}"
        save_server(prefect_api, good)
        data = {"type": "forge", "url": "http://user:canary-secret@127.0.0.1/"}
        prefect_api.save_block_document(SERVER_BLOCK, bad, data)
        assert good in saved_servers(prefect_api)
        assert bad in caplog.text
        with pytest.raises(SettingsError, match=f"{bad}.*url") as caught:
            saved_server(prefect_api, bad)
        assert "canary" not in caplog.text + str(caught.value)
        remove_server(prefect_api, bad)

    def test_a_removed_server_is_gone(self, prefect_api: PrefectApi) -> None:
        config = _config()
        save_server(prefect_api, config)
        remove_server(prefect_api, config.alias)
        with pytest.raises(NotFound, match="stablequeue servers ls"):
            saved_server(prefect_api, config.alias)
        with pytest.raises(NotFound):
            remove_server(prefect_api, config.alias)

    @pytest.mark.parametrize("alias", ["any", "default", "housekeeping"])
    def test_our_own_names_are_no_aliases(self, prefect_api: PrefectApi, alias: str) -> None:
        with pytest.raises(SettingsError, match="choose another"):
            save_server(prefect_api, _config(alias=alias))

    def test_stores_are_found_by_name_whatever_their_kind(self, prefect_api: PrefectApi) -> None:
        folder, bucket = f"f-{uuid4().hex[:8]}", f"b-{uuid4().hex[:8]}"
        PictureFolder(folder="/srv/pictures", keep_free_mib=5).save(folder)  # pyright: ignore[reportArgumentType]
        PictureBucket(bucket="b", access_key="k", secret_key=SecretStr("canary")).save(bucket)
        found = saved_store(prefect_api, folder)
        assert isinstance(found, FolderStoreConfig)
        assert (found.name, found.keep_free_mib) == (folder, 5)
        other = saved_store(prefect_api, bucket)
        assert isinstance(other, S3StoreConfig)
        assert other.secret_key.get_secret_value() == "canary"
        assert other == PictureBucket.load(bucket).config()  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(NotFound, match="Picture folder"):
            saved_store(prefect_api, "nowhere")


@pytest.mark.parametrize(
    ("slug", "name", "data", "problem"),
    [
        (FOLDER_BLOCK, "nas", {}, "nas.*folder"),
        (BUCKET_BLOCK, "s3", {"bucket": ""}, "s3.*bucket"),
        (BUCKET_BLOCK, "s3", {"bucket": "b", "endpoint_url": "x"}, "endpoint_url"),
        (FOLDER_BLOCK, "pictures", {"folder": "/x"}, "settings"),
    ],
)
def test_a_store_that_does_not_fit_is_explained(
    slug: str, name: str, data: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        store_of(slug, name, data)
