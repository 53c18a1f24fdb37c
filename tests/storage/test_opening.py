"""Stores opened from settings and from saved configurations."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from stablequeue import storage
from stablequeue.settings import S3Settings, Settings
from stablequeue.storage import STORE_CONFIG, FolderStoreConfig, S3StoreConfig, open_store
from stablequeue.storage.folder import FolderStore
from stablequeue.storage.s3 import S3Store


def test_settings_without_a_bucket_mean_the_folder(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path))
    assert isinstance(store, FolderStore)
    assert (store.name, store.locate("a")) == ("pictures", str(tmp_path / "pictures" / "a"))
    store.check()


def test_settings_with_a_bucket_mean_s3(tmp_path: Path) -> None:
    s3 = S3Settings(
        bucket="b",
        prefix="/studio//x/",
        endpoint_url="http://127.0.0.1:9/",
        access_key="a",
        secret_key=SecretStr("s"),
    )
    store = open_store(Settings(home=tmp_path, s3=s3))
    assert isinstance(store, S3Store)
    assert store.locate("a") == "s3://b/studio/x/a"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"type": "folder", "name": "nas", "folder": "/mnt/nas"}, FolderStoreConfig),
        ({"type": "s3", "name": "cloud", "bucket": "b"}, S3StoreConfig),
    ],
)
def test_plain_data_becomes_the_right_kind(data: dict[str, Any], kind: type) -> None:
    config = STORE_CONFIG.validate_python(data)
    assert isinstance(config, kind)
    assert open_store(config).name == data["name"]


@pytest.mark.parametrize(
    "data", [{"type": "ftp"}, {"type": "folder", "folder": "/x", "name": "A B"}]
)
def test_other_data_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        STORE_CONFIG.validate_python(data)


def test_looking_things_up_loads_neither_pillow_nor_the_s3_library() -> None:
    code = (
        "import sys, stablequeue.storage as s; s.open_store;"
        "sys.exit('PIL' in sys.modules or 'boto3' in sys.modules or 'prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    for name in storage.__all__:
        assert getattr(storage, name)
    wrong = "no_such_name"
    with pytest.raises(AttributeError, match=wrong):
        getattr(storage, wrong)
