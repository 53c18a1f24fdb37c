"""Where model files come from: each source turns a `Wanted` into an `Offer` to download."""

from stablequeue.models.sources.access import Access
from stablequeue.models.sources.choosing import Chosen, Wish, choose
from stablequeue.models.sources.civitai import Civitai, Search, civitai_access
from stablequeue.models.sources.direct import direct_access, direct_offer
from stablequeue.models.sources.finding import Sources, access_for, open_sources
from stablequeue.models.sources.huggingface import HuggingFace, huggingface_access
from stablequeue.models.sources.offer import Offer, Wanted
from stablequeue.models.sources.templates import model_links
from stablequeue.source_settings import SourceSettings

__all__ = [
    "Access",
    "Chosen",
    "Civitai",
    "HuggingFace",
    "Offer",
    "Search",
    "SourceSettings",
    "Sources",
    "Wanted",
    "Wish",
    "access_for",
    "choose",
    "civitai_access",
    "direct_access",
    "direct_offer",
    "huggingface_access",
    "model_links",
    "open_sources",
]
