"""Bringing home what a prompt made, and making sure it is what was asked for."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from stablequeue.engines.base import JSON, Kind, RawAsset, RawResult, Ticket
from stablequeue.engines.comfyui import answers, outputs
from stablequeue.engines.comfyui.answers import Ended
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.engines.comfyui.outputs import RemoteFile
from stablequeue.engines.comfyui.together import together
from stablequeue.engines.comfyui.workflow import seed_of
from stablequeue.engines.comfyui.workflow_check import inputs_of, model_names
from stablequeue.errors import JobFailed, ProtocolError, ResultLost, StoreUnavailable, WrongModel
from stablequeue.servers import ServerConfig

_AT_ONCE = 4
_MOST_RECOVERED = 64


def folder_and_name(folder: str, number: int) -> dict[str, str]:
    """Return where SaveImage puts the n-th file of our prefix, counting from 1."""
    return {"filename": f"img_{number:05d}_.png", "subfolder": folder, "type": "output"}


class Collector:
    """Fetches results of one session."""

    def __init__(self, server: ServerConfig, client: ComfyClient) -> None:
        self._server = server
        self._client = client

    async def from_history(self, ticket: Ticket, ended: Ended, spool: Path) -> RawResult:
        """Fetch what a prompt made, as its history says.

        Raises:
            JobFailed: It failed, or made nothing that can be stored.
            WrongModel: What ran names other models than asked.
            ResultLost: A file is no longer there.
        """
        error = outputs.failure(self._server.alias, ended)
        if error is not None:
            raise error
        self._verify(ticket, ended)
        made = outputs.read_outputs(ended)
        if not made.files and not made.texts:
            raise JobFailed(
                self._server.alias,
                "it ended well but saved nothing; a workflow needs a saving node such as SaveImage"
                + (f" ({'; '.join(made.warnings)})" if made.warnings else ""),
            )
        assets = await self._fetch(made.files, spool)
        assets += await asyncio.to_thread(self._write_texts, made.texts, spool, len(assets))
        return RawResult(
            assets=tuple(assets), warnings=made.warnings, effective=_effective(ticket, ended)
        )

    async def find_by_name(self, ticket: Ticket) -> list[RemoteFile]:
        """Look for files of our own prefix that outlived the server's memory.

        A prompt can end just before the server dies: then its history is gone and its picture is
        not. Only tickets whose files can be told by name, and only whole ones.
        """
        folder = ticket.data.get("folder")
        if not ticket.data.get("recoverable") or not isinstance(folder, str):
            return []
        found: list[RemoteFile] = []
        while len(found) < _MOST_RECOVERED:
            place = folder_and_name(folder, len(found) + 1)
            if not await self._client.ends_like_a_png(place):
                break
            found.append(
                RemoteFile(
                    filename=place["filename"],
                    subfolder=folder,
                    type="output",
                    node="",
                    kind=Kind.IMAGE,
                    mime="image/png",
                    suffix="png",
                )
            )
        return found

    async def recover(self, ticket: Ticket, files: Sequence[RemoteFile], spool: Path) -> RawResult:
        """Fetch files found by name."""
        effective: JSON = {**ticket.data.get("asked", {}), "recovered": True}
        return RawResult(assets=tuple(await self._fetch(files, spool)), effective=effective)

    def _verify(self, ticket: Ticket, ended: Ended) -> None:
        expected = [name for name in ticket.data.get("models", []) if isinstance(name, str)]
        ran = model_names(ended.graph)
        missing = [name for name in expected if name not in ran]
        if missing:
            raise WrongModel(
                self._server.alias,
                f"it ran with {answers.one_line(', '.join(ran) or 'no model')}"
                f" instead of {answers.one_line(', '.join(missing))}",
            )

    async def _fetch(self, files: Sequence[RemoteFile], spool: Path) -> list[RawAsset]:
        fetching = (self._fetch_one(n, file, spool) for n, file in enumerate(files))
        try:
            return await together(fetching, _AT_ONCE)
        except OSError as error:
            raise _spool_failed(error) from error

    async def _fetch_one(self, ordinal: int, file: RemoteFile, spool: Path) -> RawAsset:
        target = spool / file.local_name(ordinal)
        _, head = await self._client.download(file.place, target)
        if not outputs.keeps_promise(file.mime, head):
            target.unlink()
            raise ProtocolError(
                self._server.alias,
                f"what it sent as {answers.one_line(file.filename, 80)!r} is no {file.kind.value};"
                " look at the proxy before it",
            )
        mime = outputs.actual_mime(file.mime, head)
        meta: JSON = {**file.place, "node": file.node}
        if file.animated:
            meta["animated"] = True
        return RawAsset(path=target, kind=file.kind, mime=mime, name=file.filename, meta=meta)

    def _write_texts(
        self, texts: Sequence[tuple[str, str]], spool: Path, first: int
    ) -> list[RawAsset]:
        assets: list[RawAsset] = []
        for place, (node, words) in enumerate(texts):
            target = spool / f"{first + place:04d}-text.txt"
            unfinished = target.with_name(target.name + ".part")
            try:
                # Lone surrogates can come out of JSON; they have no bytes.
                unfinished.write_bytes(words.encode("utf-8", "replace"))
                unfinished.replace(target)
            except OSError as error:
                raise _spool_failed(error) from error
            assets.append(
                RawAsset(path=target, kind=Kind.TEXT, mime="text/plain", meta={"node": node})
            )
        return assets


def lost(server: ServerConfig) -> ResultLost:
    """Return the error for a prompt that is neither queued nor in the history."""
    return ResultLost(
        server.alias,
        "it no longer knows the job: it was restarted, or somebody removed the job there",
    )


def _effective(ticket: Ticket, ended: Ended) -> JSON:
    """Say what ran, read from the graph the server kept."""
    samplers = [
        inputs
        for node_id in ended.graph
        if "sampler_name" in (inputs := inputs_of(ended.graph, node_id))
    ]
    effective: JSON = {
        **ticket.data.get("asked", {}),
        "models": model_names(ended.graph),
        "node_count": len(ended.graph),
        "number": ended.number,
        "seconds": round(ended.seconds, 3),
    }
    if (seed := seed_of(ended.graph)) is not None:
        effective["seed"] = seed
    if samplers:
        effective["sampler"] = answers.text(samplers[0].get("sampler_name"))
        effective["scheduler"] = answers.text(samplers[0].get("scheduler"))
    return effective


def _spool_failed(error: OSError) -> StoreUnavailable:
    reason = error.strerror or type(error).__name__
    return StoreUnavailable("spool", f"a result could not be written ({reason}); free some space")
