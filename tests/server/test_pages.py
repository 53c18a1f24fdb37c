"""Prefect's pages ask nobody but the server they came from."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from stablequeue.server_pages import LocalPages
from tests.support.prefect import PrefectServer


def _gives(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_request: Request) -> Response:
        return response

    return endpoint


@pytest.fixture
def client() -> httpx.AsyncClient:
    own = HTMLResponse("<p>", headers={"content-security-policy": "default-src 'none'"})
    inner = Starlette(
        routes=[
            Route("/page", _gives(HTMLResponse("<p>page</p>"))),
            Route("/own", _gives(own)),
            Route("/data", _gives(JSONResponse({}))),
        ]
    )
    app: Any = LocalPages(inner)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def test_a_page_may_only_ask_its_own_server(client: httpx.AsyncClient) -> None:
    answer = await client.get("/page")
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert answer.text == "<p>page</p>"


async def test_a_policy_of_its_own_stays(client: httpx.AsyncClient) -> None:
    assert (await client.get("/own")).headers.get_list("content-security-policy") == [
        "default-src 'none'"
    ]


async def test_data_gets_none(client: httpx.AsyncClient) -> None:
    assert "content-security-policy" not in (await client.get("/data")).headers


@pytest.mark.prefect
@pytest.mark.parametrize("path", ["/", "/v2/", "/v2/runs", "/dashboard"])
def test_prefects_real_pages_have_the_policy(prefect_server: PrefectServer, path: str) -> None:
    answer = httpx.get(
        prefect_server.origin + path, headers={"accept": "text/html"}, follow_redirects=True
    )
    assert answer.status_code == 200
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
