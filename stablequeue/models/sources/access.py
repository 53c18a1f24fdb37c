"""How one source is reached: where to, with which key, and what its refusals mean."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from pydantic import SecretStr

from stablequeue.errors import DownloadError
from stablequeue.hiding import remember
from stablequeue.models.sources.network import Reach, host_matches
from stablequeue.models.sources.refusals import Answer, general_refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What opens one source's doors.

    Attributes:
        source: Its name in messages.
        reach: Every hop's URL must be within it.
        token: Key of an account; empty: none.
        token_hosts: The only hosts that ever see the token.
        refusal: Says what an unsuccessful answer of the source itself means; a storage host's
            answers are read by the downloader.
    """

    source: str
    reach: Reach
    token: SecretStr = field(default_factory=lambda: SecretStr(""))
    token_hosts: tuple[str, ...] = ()
    refusal: Callable[[Answer], DownloadError] = general_refusal

    def __post_init__(self) -> None:
        remember(self.token.get_secret_value())

    def headers(self, url: httpx.URL) -> dict[str, str]:
        """Return the headers only this URL's host gets: the key, for the source's own hosts."""
        token = self.token.get_secret_value()
        if token and host_matches(url.host, self.token_hosts):
            return {"Authorization": f"Bearer {token}"}
        return {}
