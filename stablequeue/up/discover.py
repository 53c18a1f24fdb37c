"""Look for servers on this machine's usual ports, to offer them."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

import httpx

_WITHIN_S = 2.0
_USUAL = (
    ("comfyui", "http://127.0.0.1:8188", "/system_stats", "system"),
    ("forge", "http://127.0.0.1:7860", "/sdapi/v1/samplers", ""),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answered on a usual port."""

    type: str
    url: str

    @property
    def command(self) -> str:
        """What a person types to add it."""
        return f"stablequeue servers add {self.type} --type {self.type} --url {self.url}"


async def discover() -> list[Found]:
    """Return the servers that answer on loopback now; takes two seconds at most."""
    async with httpx.AsyncClient(timeout=_WITHIN_S, trust_env=False) as client:
        answers = await asyncio.gather(
            *(_speaks(client, url + path, key) for _, url, path, key in _USUAL)
        )
    return [
        Found(kind, url)
        for (kind, url, _, _), answered in zip(_USUAL, answers, strict=True)
        if answered
    ]


async def _speaks(client: httpx.AsyncClient, address: str, key: str) -> bool:
    try:
        response = await client.get(address)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            return True  # behind credentials, but there
        data: object = response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError):
        return False
    return key in data if key and isinstance(data, dict) else isinstance(data, list)
