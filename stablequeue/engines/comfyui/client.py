"""ComfyUI's HTTP calls: one method a call, every fault translated, nothing decided here.

Source: ComfyUI `server.py` (a125cd84, 2025-10-12) and the recordings of a real one. Several POST
replies are empty with status 200 (`/queue`, `/interrupt`, `/free`): their bodies are never read.
Errors inside the server's handlers are plain text with status 500.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from stablequeue.engines.comfyui import answers
from stablequeue.engines.comfyui.answers import JSON, NonsenseError
from stablequeue.errors import (
    EngineUnreachable,
    JobRejected,
    ProtocolError,
    ResultLost,
)
from stablequeue.servers import ServerConfig
from stablequeue.wire import check_access, faults, open_client

T = TypeVar("T")

OK = HTTPStatus.OK
MISSING = HTTPStatus.NOT_FOUND
TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
PNG_END = bytes.fromhex("0000000049454e44ae426082")  # a whole PNG ends with this IEND chunk


def too_large(server: str, size: int) -> JobRejected:
    """Return the error for a picture of `size` bytes that the server does not take."""
    return JobRejected(
        server,
        f"a picture of {size} bytes is too large for it; raise --max-upload-size there, or the"
        " limit of the proxy before it",
    )


class ComfyClient:
    """One server's HTTP interface. Opened and closed with its engine.

    Short calls end within the server's timeouts even if it sends one byte at a time; only
    `download` has no total limit, because its size is unknown.
    """

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._http = open_client(server)
        self._limit_s = server.connect_timeout_s + 2 * server.read_timeout_s

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    # What the server is and has.

    async def system_stats(self) -> answers.SystemStats:
        """Say what the server is."""
        return await self._get("system_stats", answers.parse_system_stats, "asking what it is")

    async def features(self) -> JSON:
        """Return its feature flags; empty on servers that have none."""
        response = await self._send("GET", "features", "asking for its features")
        if response.status_code != OK:
            return {}
        return answers.mapping(self._read(response, answers.parse_json))

    async def has_jobs(self) -> bool:
        """Whether it has the newer `/api/jobs` (0.8.0 has, 0.3.64 has not)."""
        response = await self._send("GET", "api/jobs", "asking for its jobs", params={"limit": 1})
        return response.status_code == OK

    async def queue_length(self) -> int:
        """Return how many prompts run and wait there, anybody's."""

        def remaining(data: Any) -> int:
            info = answers.mapping(answers.mapping(data).get("exec_info"))
            if "queue_remaining" not in info:
                raise NonsenseError("it has no exec_info")
            return answers.whole(info["queue_remaining"])

        return await self._get("prompt", remaining, "asking how busy it is")

    async def node_class(self, name: str) -> answers.NodeClass | None:
        """Describe a node class; None if it has none of that name."""
        doing = "asking for its nodes"
        response = await self._send("GET", f"object_info/{quote(name, safe='')}", doing)
        if response.status_code == MISSING and "/" in name:
            # Custom nodes have such names (`LoadImage //Inspire`), and proxies may unquote them.
            response = await self._send("GET", "object_info", doing)
        return self._parsed(response, lambda data: answers.parse_node_class(data, name))

    async def models(self, folder: str) -> tuple[str, ...]:
        """List a model folder; empty if it has no such folder."""
        path = f"models/{quote(folder, safe='')}"
        response = await self._send("GET", path, "asking for its models")
        if response.status_code == MISSING:
            return ()
        return self._parsed(response, answers.parse_names)

    async def embeddings(self) -> tuple[str, ...]:
        """List the embeddings, without suffix."""
        return await self._get("embeddings", answers.parse_names, "asking for its embeddings")

    async def metadata(self, folder: str, name: str) -> JSON:
        """Return what a safetensors file says about itself; empty if it says nothing."""
        path = f"view_metadata/{quote(folder, safe='')}"
        response = await self._send("GET", path, "asking about a model", params={"filename": name})
        if response.status_code != OK:
            return {}
        return answers.mapping(self._read(response, answers.parse_json))

    # The queue.

    async def queue(self) -> answers.Queue:
        """Return what runs and waits, in the order of running."""
        return await self._get("queue", answers.parse_queue, "looking at its queue")

    async def history(self, prompt_id: str) -> answers.Ended | None:
        """Return how a prompt ended; None while it has not (or it is unknown)."""
        return await self._get(
            f"history/{quote(prompt_id, safe='')}",
            lambda data: answers.parse_history(data, prompt_id),
            "looking at its history",
        )

    async def post_prompt(self, body: bytes) -> httpx.Response:
        """Queue a prompt (JSON) and return the raw reply, whatever its status.

        Never repeated here: a reply that got lost does not say that nothing was queued.
        """
        async with self._limited("handing the job over"):
            return await self._http.post(
                "prompt", content=body, headers={"Content-Type": "application/json"}
            )

    async def delete(self, prompt_id: str) -> None:
        """Remove one waiting prompt; unknown and running ids are ignored by the server."""
        await self._post("queue", {"delete": [prompt_id]}, "removing a job from its queue")

    async def interrupt(self, prompt_id: str) -> None:
        """Interrupt one running prompt. The id is always sent: without one it stops anybody's."""
        if not prompt_id:
            message = "an interrupt without an id would stop somebody else's job"
            raise ValueError(message)
        await self._post("interrupt", {"prompt_id": prompt_id}, "interrupting a job")

    async def cancel_job(self, prompt_id: str) -> bool:
        """Cancel through the newer API; False if the server does not have it."""
        path = f"api/jobs/{quote(prompt_id, safe='')}/cancel"
        response = await self._send("POST", path, "cancelling a job")
        return response.status_code == OK

    async def free(self) -> None:
        """Unload models and free memory."""
        body = {"unload_models": True, "free_memory": True}
        await self._post("free", body, "freeing its memory")

    # Files.

    async def upload(self, name: str, data: bytes, mime: str) -> str:
        """Upload an input picture and return the value a LoadImage takes.

        The name must be plain ASCII: an escaped one is kept escaped by the server (scenario 23).
        """
        response = await self._send(
            "POST",
            "upload/image",
            "uploading a picture",
            files={"image": (name, data, mime)},
            data={"overwrite": "true", "type": "input"},
            slow=True,
        )
        if response.status_code == TOO_LARGE:
            raise too_large(self._server.alias, len(data))

        def value(answer: Any) -> str:
            found = answers.mapping(answer)
            given, folder = answers.text(found.get("name")), answers.text(found.get("subfolder"))
            if not given:
                raise NonsenseError("it does not say how it named the picture")
            return f"{folder}/{given}" if folder else given

        return self._parsed(response, value)

    async def ends_like_a_png(self, place: Mapping[str, str]) -> bool:
        """Whether a file is there and is a whole PNG; only its last bytes are fetched."""
        response = await self._send(
            "GET",
            "view",
            "looking for a finished file",
            params=dict(place),
            headers={"Range": f"bytes=-{len(PNG_END)}"},
        )
        fine = response.status_code in {OK, HTTPStatus.PARTIAL_CONTENT}
        return fine and response.content.endswith(PNG_END)

    async def download(self, place: Mapping[str, str], target: Path) -> tuple[str, bytes]:
        """Fetch a file to `target`, which appears only when it is whole.

        Args:
            place: `filename`, `subfolder` and `type`, verbatim as the server named them.
            target: Written under a temporary name beside it and renamed.

        Returns:
            Its content type and first bytes.

        Raises:
            ResultLost: The server no longer has it.
        """
        unfinished = target.with_name(target.name + ".part")
        doing = "fetching a result"
        head = b""
        async with (
            faults(self._server, doing),
            self._http.stream("GET", "view", params=dict(place)) as response,
        ):
            check_access(self._server, response)
            if response.status_code != OK:
                raise ResultLost(
                    self._server.alias,
                    f"it no longer has the finished file ({response.status_code});"
                    " it will be made again",
                )
            kind = response.headers.get("content-type", "")
            with unfinished.open("wb") as file:
                async for chunk in response.aiter_bytes():
                    if len(head) < 64:  # noqa: PLR2004 - enough for every signature
                        head += chunk[:64]
                    await asyncio.to_thread(file.write, chunk)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
        unfinished.replace(target)
        return kind, head

    # How all of them are sent.

    async def _get(self, path: str, parse: Callable[[Any], T], doing: str) -> T:
        return self._parsed(await self._send("GET", path, doing), parse)

    async def _post(self, path: str, body: JSON, doing: str) -> None:
        response = await self._send("POST", path, doing, json=body)
        if response.status_code != OK:
            raise self._unexpected(response)

    async def _send(
        self, method: str, path: str, doing: str, *, slow: bool = False, **options: Any
    ) -> httpx.Response:
        async with self._limited(doing, times=10 if slow else 1):
            response = await self._http.request(method, path, **options)
        check_access(self._server, response)
        return response

    @asynccontextmanager
    async def _limited(self, doing: str, *, times: int = 1) -> AsyncGenerator[None]:
        limit_s = times * self._limit_s
        try:
            async with faults(self._server, doing), asyncio.timeout(limit_s):
                yield
        except TimeoutError as error:
            raise EngineUnreachable(
                self._server.alias,
                f"no whole answer within {limit_s:g} s while {doing}; trying again",
            ) from error

    def _parsed(self, response: httpx.Response, parse: Callable[[Any], T]) -> T:
        if response.status_code != OK:
            raise self._unexpected(response)
        return self._read(response, lambda body: parse(answers.parse_json(body)))

    def _read(self, response: httpx.Response, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(response.content)
        except NonsenseError as error:
            raise ProtocolError(
                self._server.alias,
                f"unexpected answer to {response.request.url.path}: {error}."
                f" Is there a ComfyUI at {self._server.base_url}?",
            ) from error

    def _unexpected(self, response: httpx.Response) -> ProtocolError:
        said = answers.one_line(response.text, 120)
        return ProtocolError(
            self._server.alias,
            f"unexpected status {response.status_code} from {response.request.url.path}"
            f" ({said or 'empty'}). Is there a ComfyUI at {self._server.base_url}?",
        )
