"""Forge's HTTP calls: one method a call, every fault translated, nothing decided here.

Source: `modules/api/api.py` and `modules/progress.py` of Forge (dfdcbab6, June 2025) and the
recordings of a real one. None as a result means that the server has no such route (404).
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from stablequeue.engines.forge import answers
from stablequeue.engines.forge.answers import JSON, Nonsense, mapping, one_line
from stablequeue.errors import (
    EngineAuthFailed,
    EngineBusy,
    EngineError,
    EngineUnreachable,
    ProtocolError,
)
from stablequeue.servers import ServerConfig
from stablequeue.wire import check_access, faults, open_client

T = TypeVar("T")

_OK = HTTPStatus.OK
_MISSING = HTTPStatus.NOT_FOUND
# uvicorn closes a quiet connection after 5 s; ours are given up before that.
_KEEPALIVE_S = 4.0


@cache
def _tls() -> ssl.SSLContext:
    """Return what both clients of a session check certificates with; making it takes 15 ms."""
    return httpx.create_ssl_context(trust_env=False)


class ForgeClient:
    """One server's HTTP interface. Opened and closed with its engine.

    Short calls end within the server's timeouts even if it sends one byte at a time. Jobs have a
    connection of their own and no limit: their answer is the result.
    """

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        limits = httpx.Limits(keepalive_expiry=_KEEPALIVE_S)
        self._http = open_client(server, limits=limits, verify=_tls())
        limits = httpx.Limits(max_keepalive_connections=0)
        self._jobs = open_client(server, limits=limits, verify=_tls())
        self._limit_s = server.connect_timeout_s + 2 * server.read_timeout_s

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        await self._jobs.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._jobs.__aexit__(exc_type, exc, traceback)
        finally:
            await self._http.__aexit__(exc_type, exc, traceback)

    # What the server is and has.

    async def app_id(self) -> answers.AppId | None:
        """Return the identity of this run of its process; None with `--nowebui`."""
        return await self._find("app_id", answers.APP_ID, "asking who it is")

    async def has_config(self) -> bool:
        """Whether the web page's configuration is there (2 MB: only its head is read)."""
        async with (
            self._limited("asking for its page"),
            self._http.stream("GET", "config") as response,
        ):
            return response.status_code in {_OK, HTTPStatus.UNAUTHORIZED}

    async def checkpoints(self) -> list[answers.Checkpoint] | None:
        """List the checkpoints; None without `--api`."""
        return await self._find("sdapi/v1/sd-models", answers.CHECKPOINTS, "listing its models")

    async def modules(self) -> list[answers.ModelFile] | None:
        """List VAEs and text encoders; None if it is not Forge."""
        return await self._find("sdapi/v1/sd-modules", answers.MODEL_FILES, "listing its modules")

    async def vaes(self) -> list[answers.ModelFile] | None:
        """List VAEs; None on Forge."""
        return await self._find("sdapi/v1/sd-vae", answers.MODEL_FILES, "listing its VAEs")

    async def loras(self) -> list[answers.LoraFile] | None:
        """List the LoRAs; None without that extension, or while it is starting."""
        return await self._find("sdapi/v1/loras", answers.LORAS, "listing its LoRAs")

    async def samplers(self) -> list[answers.Sampler]:
        """List the samplers."""
        return await self._get("sdapi/v1/samplers", answers.SAMPLERS, "listing its samplers")

    async def schedulers(self) -> list[answers.Scheduler] | None:
        """List the schedulers; None before AUTOMATIC1111 1.9."""
        path = "sdapi/v1/schedulers"
        return await self._find(path, answers.SCHEDULERS, "listing its schedulers")

    async def upscalers(self) -> list[str]:
        """List the upscalers."""
        found = await self._get("sdapi/v1/upscalers", answers.NAMES, "listing its upscalers")
        return [entry.name for entry in found]

    async def latent_modes(self) -> list[str]:
        """List the latent upscale modes; empty where there is no such list."""
        path = "sdapi/v1/latent-upscale-modes"
        found = await self._find(path, answers.NAMES, "listing its latent upscale modes")
        return [entry.name for entry in found or []]

    async def styles(self) -> list[str]:
        """List the prompt styles; empty where there is no such list."""
        found = await self._find("sdapi/v1/prompt-styles", answers.NAMES, "listing its styles")
        return [entry.name for entry in found or []]

    async def scripts(self) -> answers.Scripts | None:
        """List the scripts' titles."""
        return await self._find("sdapi/v1/scripts", answers.SCRIPTS, "listing its scripts")

    async def embeddings(self) -> answers.Embeddings | None:
        """List the embeddings."""
        return await self._find("sdapi/v1/embeddings", answers.EMBEDDINGS, "listing its embeddings")

    async def memory(self) -> answers.Memory | None:
        """Say how much memory its card has."""
        return await self._find("sdapi/v1/memory", answers.MEMORY, "asking for its memory")

    async def options(self) -> JSON | None:
        """Return its settings; None while it cannot tell them.

        It answers 500 to everybody once somebody stored a value of a wrong type.
        """
        response = await self._send("GET", "sdapi/v1/options", "reading its settings")
        if response.status_code != _OK:
            return None
        return self._parsed(response, answers.OBJECT)

    async def flags(self) -> JSON:
        """Return its command line flags; empty if it cannot tell them.

        It answers 500 whenever `--port` was given, with the flags in `body` all the same.
        """
        response = await self._send("GET", "sdapi/v1/cmd-flags", "reading its flags")
        try:
            found = answers.read(answers.OBJECT, response.content)
        except Nonsense:
            return {}
        return found if response.status_code == _OK else mapping(found.get("body"))

    # What the server does.

    async def state(self) -> answers.State:
        """Say what runs there now, anybody's."""
        return (await self.progress()).state

    async def progress(self, *, picture: bool = False) -> answers.GlobalProgress:
        """Say how far what runs there is, anybody's."""
        return await self._get(
            "sdapi/v1/progress",
            answers.PROGRESS,
            "asking for its progress",
            params={"skip_current_image": "false" if picture else "true"},
        )

    async def task(
        self, task_id: str, *, preview: int | None = None
    ) -> answers.TaskProgress | None:
        """Say how far one task is; None with `--nowebui`.

        Args:
            task_id: As sent in `force_task_id`.
            preview: Ask for a preview newer than this one (-1: any); None: for none.
        """
        response = await self._send(
            "POST",
            "internal/progress",
            "asking for a job's progress",
            json={
                "id_task": task_id,
                "id_live_preview": -1 if preview is None else preview,
                "live_preview": preview is not None,
            },
        )
        return None if response.status_code == _MISSING else self._parsed(response, answers.TASK)

    async def pending(self) -> list[str] | None:
        """List the waiting tasks, some of which may have leaked; None where there is no list."""
        path = "internal/pending-tasks"
        found = await self._find(path, answers.PENDING, "looking at its queue")
        return None if found is None else found.tasks

    async def interrupt(self) -> None:
        """Stop whatever runs now, whoever owns it: look first. Never sent twice."""
        async with self._limited("interrupting a job"):
            response = await self._jobs.post("sdapi/v1/interrupt", json={})
        check_access(self._server, response)
        if response.status_code != _OK:
            raise self._unexpected(response)

    async def set_options(self, values: JSON) -> httpx.Response:
        """Store settings and return the raw reply. Never while anything runs there."""
        return await self._send("POST", "sdapi/v1/options", "storing its settings", json=values)

    async def unload(self) -> None:
        """Unload the model from the card."""
        response = await self._send(
            "POST", "sdapi/v1/unload-checkpoint", "freeing its memory", json={}
        )
        if response.status_code != _OK:
            raise self._unexpected(response)

    async def refresh(self, what: str) -> None:
        """Have it list its `checkpoints`, `loras`, `vae` or `embeddings` anew.

        All but the LoRAs wait for the job that runs there (`modules/api/api.py`, the queue lock),
        so no answer is late. An old server that lacks the route is left alone.
        """
        timeout = httpx.Timeout(None, connect=self._server.connect_timeout_s)
        async with faults(self._server, f"having it look for new {what}"):
            response = await self._jobs.post(f"sdapi/v1/refresh-{what}", json={}, timeout=timeout)
        check_access(self._server, response)

    async def run(self, path: str, body: bytes, trace: Any) -> httpx.Response:
        """Send a job and await its end, however long; return the raw reply.

        Never repeated here: a lost reply does not say that nothing runs. `trace` is told httpcore's
        events, so that the caller knows when the whole request was written.
        """
        timeout = httpx.Timeout(None, connect=self._server.connect_timeout_s)
        async with faults(self._server, "awaiting a job's result"):
            return await self._jobs.post(
                path,
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                extensions={"trace": trace},
            )

    # Files it saved. Behind `--gradio-auth` they need the login of the web page.

    async def file_status(self, path: str) -> int:
        """Return the status of a HEAD for a file, after logging in where needed."""
        response = await self._file("HEAD", path)
        return response.status_code

    async def file(self, path: str) -> bytes | None:
        """Return a file's bytes; None if there is none, or none that may be read."""
        response = await self._file("GET", path)
        return response.content if response.status_code == _OK else None

    async def _file(self, method: str, path: str) -> httpx.Response:
        url = f"file={quote(path, safe='/')}"
        response = await self._request(method, url, "looking for a finished file")
        if response.status_code == HTTPStatus.UNAUTHORIZED and self._server.ui_username:
            await self._log_in()
            response = await self._request(method, url, "looking for a finished file")
        return response

    async def _log_in(self) -> None:
        """Get the web page's cookie; the client keeps it."""
        response = await self._request(
            "POST",
            "login",
            "logging in to its web page",
            data={
                "username": self._server.ui_username,
                "password": self._server.ui_password.get_secret_value(),
            },
        )
        if response.status_code != _OK:
            raise EngineAuthFailed(
                self._server.alias,
                "it refused the login of its web page (--gradio-auth). Correct it with:"
                f" stablequeue servers add {self._server.alias} --update --ui-username ...",
            )

    # How all of them are sent.

    async def _find(self, path: str, shape: TypeAdapter[T], doing: str, **options: Any) -> T | None:
        response = await self._send("GET", path, doing, **options)
        return None if response.status_code == _MISSING else self._parsed(response, shape)

    async def _get(self, path: str, shape: TypeAdapter[T], doing: str, **options: Any) -> T:
        return self._parsed(await self._send("GET", path, doing, **options), shape)

    async def _send(self, method: str, path: str, doing: str, **options: Any) -> httpx.Response:
        response = await self._request(method, path, doing, **options)
        check_access(self._server, response)
        return response

    async def _request(self, method: str, path: str, doing: str, **options: Any) -> httpx.Response:
        """Send something that may be sent twice.

        After an answer of 500 the server drops the connection without having said so, which is
        found out by the next request on it.
        """
        async with self._limited(doing):
            try:
                return await self._http.request(method, path, **options)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                return await self._http.request(method, path, **options)

    @asynccontextmanager
    async def _limited(self, doing: str) -> AsyncGenerator[None]:
        try:
            async with faults(self._server, doing), asyncio.timeout(self._limit_s):
                yield
        except TimeoutError as error:
            raise EngineUnreachable(
                self._server.alias,
                f"no whole answer within {self._limit_s:g} s while {doing}; trying again",
            ) from error

    def _parsed(self, response: httpx.Response, shape: TypeAdapter[T]) -> T:
        if response.status_code != _OK:
            raise self._unexpected(response)
        try:
            return answers.read(shape, response.content)
        except Nonsense as error:
            raise ProtocolError(
                self._server.alias,
                f"unexpected answer to {response.request.url.path}: {error}."
                f" Is there a Forge at {self._server.base_url}?",
            ) from error

    def _unexpected(self, response: httpx.Response) -> EngineError:
        path = response.request.url.path
        if response.status_code == _MISSING:
            return EngineBusy(
                self._server.alias, f"it is not ready: {path} is not there (404); trying again"
            )
        said = one_line(response.text, 120) or "empty"
        return ProtocolError(
            self._server.alias,
            f"unexpected status {response.status_code} from {path} ({said})."
            f" Is there a Forge at {self._server.base_url}?",
        )
