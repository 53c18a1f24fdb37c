"""A file at a plain https address.

Nothing but the address is known: size and kind come with the first answer, and without a promised
SHA-256 a transfer is only continued while the server says that the file is still the same.
"""

import httpx

from stablequeue.errors import NoSuitableFile, UnsafeAddress
from stablequeue.hiding import without_secrets
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.naming import has_model_suffix, name_of_url, safe_name
from stablequeue.models.sources.network import Reach
from stablequeue.models.sources.offer import Offer, Wanted
from stablequeue.source_settings import DirectSettings


def direct_access(settings: DirectSettings) -> Access:
    """Return which hosts are reached, redirects included; no key is ever sent."""
    return Access(source="direct", reach=Reach(settings.hosts, loopback=settings.loopback))


def direct_offer(wanted: Wanted, settings: DirectSettings) -> Offer:
    """Return the offer for an address; nothing is asked yet.

    The address is kept as it was given, signed parameters included: who gives one away with a
    secret in it gives that away.

    Raises:
        UnsafeAddress: Not https, with a password, or a host that is not allowed.
        NoSuitableFile: Neither the address nor `wanted` names a model file.
    """
    try:
        url = httpx.URL(wanted.url.strip())
    except httpx.InvalidURL as error:
        raise UnsafeAddress("direct", "this is no address") from error
    Reach(settings.hosts, loopback=settings.loopback).check(url)
    name = safe_name(wanted.name, fallback="") or name_of_url(str(url))
    if not has_model_suffix(name):
        raise NoSuitableFile(
            "direct", f"{name or 'the address'} is no model file by its name; give it a name"
        )
    shown = without_secrets(str(url.copy_with(fragment=None)))
    return Offer(
        source="direct",
        ident=f"direct:{shown}",
        url=str(url.copy_with(fragment=None)),
        name=name,
        kind=wanted.kind,
        sha256=wanted.sha256,
        facts={"page": shown},
    )
