"""What tests of models share: one fake Civitai for all, and how to reach it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stablequeue.models.downloads import Limits
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.network import Reach
from stablequeue.models.sources.offer import Offer
from stablequeue.models.sources.refusals import civitai_refusal
from tests.fakes.civitai import FakeCivitai, serve_civitai

LOOPBACK = Reach(("127.0.0.1", "localhost"), loopback=True)

QUICK = Limits(
    stall_s=0.3,
    connect_s=5.0,
    first_wait_s=0.001,
    longest_wait_s=0.01,
    patience_s=1.0,
    least_split=4096,
    margin=0,
    save_every_s=0.0,
    tell_every_s=0.0,
    queued=64 * 1024,
    flush=False,
)
"""As `Limits`, for files of some kilobytes."""


@dataclass
class CivitaiSite:
    """A fake Civitai that is served."""

    url: str
    fake: FakeCivitai

    def access(self, token: str = "") -> Access:
        return Access(
            source="civitai",
            reach=LOOPBACK,
            token=SecretStr(token),
            token_hosts=("127.0.0.1",),
            refusal=civitai_refusal,
        )

    def offer(self, data: bytes, **changes: Any) -> Offer:
        """Put a file there and return its offer, as the client would make it."""
        file = self.fake.add_file(data, **changes)
        version_id = changes.get("version_id", 600)
        return Offer(
            source="civitai",
            ident=f"civitai:{version_id}/{file['id']}",
            url=f"{self.url}/api/download/models/{version_id}?fileId={file['id']}",
            name=file["name"],
            kind="lora",
            size=len(data),
            sha256=file["hashes"]["SHA256"].lower(),
        )


@pytest.fixture(scope="session")
def _served_civitai() -> Iterator[tuple[str, FakeCivitai]]:
    fake = FakeCivitai()
    with serve_civitai(fake) as url:
        yield url, fake


@pytest.fixture
def civitai(_served_civitai: tuple[str, FakeCivitai]) -> CivitaiSite:
    """A fake Civitai with nothing but the reference's examples, nothing going wrong."""
    url, fake = _served_civitai
    fresh = FakeCivitai(storage=fake.storage, storage_url=fake.storage_url)
    fake.__dict__.update(fresh.__dict__)
    fake.storage.files.clear()
    fake.reset()
    return CivitaiSite(url, fake)


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """A folder for lock files, outside the models' folder."""
    return tmp_path / "locks"
