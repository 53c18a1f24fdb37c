"""All sources behind one door: an address finds its source by its host."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stablequeue.models.sources.access import Access
from stablequeue.models.sources.asking import ApiTries
from stablequeue.models.sources.choosing import Wish
from stablequeue.models.sources.civitai import Civitai, civitai_access
from stablequeue.models.sources.direct import direct_access, direct_offer
from stablequeue.models.sources.huggingface import HuggingFace, huggingface_access, parse_ref
from stablequeue.models.sources.offer import Offer, Wanted
from stablequeue.source_settings import SourceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources of one process, open."""

    settings: SourceSettings
    civitai: Civitai
    huggingface: HuggingFace

    async def offer(self, wanted: Wanted, wish: Wish | None = None) -> Offer:
        """Return the offer for an address, or for `owner/repository/file@revision`.

        Args:
            wanted: What and where.
            wish: Which of several files of a Civitai version.

        Raises:
            DownloadError: It cannot be had; see each source.
        """
        if self.civitai.understands(wanted.url) is not None:
            return await self.civitai.offer(wanted, wish)
        ref = self.huggingface.understands(wanted.url)
        if ref is None and "://" not in wanted.url:
            ref = parse_ref(wanted.url)
        if ref is not None:
            return await self.huggingface.offer(ref, wanted)
        return direct_offer(wanted, self.settings.direct)


def access_for(offer: Offer, settings: SourceSettings) -> Access:
    """Return how the source of an offer is reached, in whatever process it is downloaded."""
    match offer.source:
        case "civitai":
            return civitai_access(settings.civitai)
        case "huggingface":
            return huggingface_access(settings.huggingface)
        case _:
            return direct_access(settings.direct)


@asynccontextmanager
async def open_sources(
    settings: SourceSettings, cache: Path, *, tries: ApiTries | None = None
) -> AsyncGenerator[Sources]:
    """Open all sources for the length of the block.

    Args:
        settings: Of the sources.
        cache: Folder for their answers.
        tries: How patient.
    """
    async with (
        Civitai(settings.civitai, cache / "civitai", tries=tries) as civitai,
        HuggingFace(settings.huggingface, tries=tries) as huggingface,
    ):
        yield Sources(settings=settings, civitai=civitai, huggingface=huggingface)
