"""Stores to test, and pictures to put into them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from stablequeue.storage import FolderStoreConfig, Store, open_store
from tests.support.s3 import make_bucket, s3_url

__all__ = ["s3_url"]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every kind of store, empty."""
    if request.param == "folder":
        yield open_store(FolderStoreConfig(folder=tmp_path / "pictures"))
        return
    url: str = request.getfixturevalue("s3_url")
    yield open_store(make_bucket(url, f"b-{uuid4().hex}"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small PNG."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (48, 32), (200, 30, 30)).save(path)
    return path


def sha256(path: Path) -> str:
    """Return the hash a caller knows of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
