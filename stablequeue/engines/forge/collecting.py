"""Bringing home what a job made: from the answer to its request, or from the file it saved.

Source: the recordings of interrupted and skipped jobs, which are answered with 200 and half-done
pictures, and of `recover_by_filename`.
"""

import asyncio
import base64
import binascii
import os
import time
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import TypeAdapter

from stablequeue.engines.base import JSON, Located, RawAsset, RawResult, Ticket
from stablequeue.engines.forge import answers, names, verify
from stablequeue.engines.forge.answers import Info, Nonsense, mapping, text
from stablequeue.engines.forge.failures import failure
from stablequeue.engines.forge.following import Follower
from stablequeue.engines.forge.posting import Post
from stablequeue.engines.forge.session import Session
from stablequeue.engines.forge.submission import Desk
from stablequeue.engines.forge.watching import POLL_S
from stablequeue.errors import (
    EngineAuthFailed,
    EngineError,
    EngineUnreachable,
    Interrupted,
    JobFailed,
    NotFound,
    ProtocolError,
    ResultLost,
    StoreUnavailable,
    UnreadableFile,
)
from stablequeue.storage.metadata import read_metadata
from stablequeue.storage.sniffing import Sniffed, sniff

T = TypeVar("T")

WATCH_S = 5.0
"""Between two looks at whether a request that is still open can be answered at all."""

ENDED_UNANSWERED_S = 30.0
"""A job that ended so long ago without an answer lost its connection."""

RECONNECT_S = 20.0
"""How long a server that went away is waited for before the ticket is left for later."""

_GATEWAY = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_PNG_COLOUR_TYPE = 25  # offset of IHDR's byte for it
_PNG_RGBA = 6


class Collector:
    """Collects the results of one session."""

    def __init__(self, session: Session, desk: Desk, follower: Follower) -> None:
        self._session, self._client = session, session.client
        self._desk, self._follower = desk, follower
        self._alias = session.alias

    async def collect(self, ticket: Ticket, spool: Path) -> RawResult:
        """Await the end and bring the picture into `spool`; see `Engine.collect`."""
        post = self._desk.posts.get(ticket.remote_id)
        if post is not None:
            response = await self._answer(post, ticket)
            if response is not None:
                return await self._from_answer(response, post, ticket, spool)
        return await self._recover(ticket, spool, post)

    # From the answer.

    async def _answer(self, post: Post, ticket: Ticket) -> httpx.Response | None:
        """Await the answer; None if it is lost. A dead connection may look like a slow job."""
        ended_at: float | None = None
        while not await post.until_done(WATCH_S):
            try:
                lost = await self._follower.has_restarted(ticket)
                task = await self._client.task(ticket.remote_id)
            except EngineError:
                continue  # the connection may still be fine
            if task is not None and task.completed and not task.active:
                ended_at = ended_at or time.monotonic()
                lost = lost or time.monotonic() - ended_at >= ENDED_UNANSWERED_S
            if lost:
                await post.give_up()
        if post.broken:
            return None
        response = post.answer.result()
        if response.status_code in _GATEWAY:  # a proxy's patience ended, not the job
            self._desk.posts.pop(ticket.remote_id, None)
            return None
        return response

    async def _from_answer(
        self, response: httpx.Response, post: Post, ticket: Ticket, spool: Path
    ) -> RawResult:
        if response.status_code != HTTPStatus.OK:
            self._session.last_boot.leaked.add(ticket.remote_id)
            raise failure(self._session.server, response)
        if ticket.data.get("kind") == "upscale":
            return await self._upscaled(response, post, ticket, spool)
        body = await asyncio.to_thread(self._read, answers.GENERATED, response.content)
        info = self._read(answers.INFO, body.info)
        first = max(info.index_of_first_image, 0)
        script = ticket.data.get("script")
        encoded = (body.images or [])[first : None if script else first + 1]
        if not encoded:
            raise Interrupted(
                self._alias, "it was interrupted there before it made a picture; try again"
            )
        contents = [await asyncio.to_thread(self._decoded, picture) for picture in encoded]
        kinds = [self._sniffed(content) for content in contents]
        await self._refuse_unfinished(contents[0], kinds[0], info, post, ticket)
        texts = [
            info.infotexts[place] if place < len(info.infotexts) else ""
            for place in range(first, first + len(contents))
        ]
        made = verify.read_made(texts[0], info)
        warnings = await self._checked(ticket, made, kinds[0])
        self._session.last_boot.version = made.version
        assets = [
            await self._spooled(spool / f"{n:04d}{kind.suffix}", content, infotext, ticket)
            for n, (content, kind, infotext) in enumerate(zip(contents, kinds, texts, strict=True))
        ]
        return RawResult(
            assets=tuple(assets), warnings=tuple(warnings), effective=_effective(ticket, made)
        )

    async def _upscaled(
        self, response: httpx.Response, post: Post, ticket: Ticket, spool: Path
    ) -> RawResult:
        body = await asyncio.to_thread(self._read, answers.EXTRAS, response.content)
        if post.interrupted:
            raise Interrupted(self._alias, "it was interrupted there")
        content = await asyncio.to_thread(self._decoded, body.image)
        kind = self._sniffed(content)
        asset = await self._spooled(spool / f"0000{kind.suffix}", content, "", ticket)
        expected = mapping(ticket.data.get("expect"))
        effective: JSON = {
            "upscaler": expected.get("upscaler", ""),
            "told": answers.one_line(body.html_info),
        }
        return RawResult(assets=(asset,), warnings=_format_warning(kind), effective=effective)

    async def _refuse_unfinished(
        self, content: bytes, kind: Sniffed, info: Info, post: Post, ticket: Ticket
    ) -> None:
        """Tell a half-done picture from a finished one; nothing in the answer does.

        Evidence: somebody was seen stopping this very job (its `job_timestamp`), or it was us; and
        only finished pictures are saved, which on Forge also makes them RGBA.

        Raises:
            Interrupted: It is not finished.
        """
        stopped = post.interrupted or info.job_timestamp in post.stopped_stamps
        stopped = stopped or await self._was_stopped(info)
        saved = await self._is_saved(content, kind, ticket)
        if saved or not (stopped or saved is False):
            return
        who = "as we asked" if post.interrupted else "by somebody there"
        raise Interrupted(self._alias, f"the picture was stopped half-way {who}; try again")

    async def _was_stopped(self, info: Info) -> bool:
        """Whether the server still says so; the flags stay until the next job begins."""
        try:
            state = await self._client.state()
        except EngineError:
            return False
        mine = state.idle and state.job_timestamp == info.job_timestamp
        return mine and (state.interrupted or state.skipped)

    async def _is_saved(self, content: bytes, kind: Sniffed, ticket: Ticket) -> bool | None:
        """Whether the server saved the picture, which it does with finished ones only.

        None: nobody can tell.
        """
        if not ticket.data.get("saves_whole_only"):
            return None
        if kind.mime == "image/png" and content[_PNG_COLOUR_TYPE] == _PNG_RGBA:
            return True
        path = text(ticket.data.get("file"))
        if not path:
            return None
        try:
            status = await self._client.file_status(path)
            if status == HTTPStatus.NOT_FOUND and await self._session.names_files():
                return False
        except EngineError:
            return None
        return True if status == HTTPStatus.OK else None

    # From the file.

    async def _recover(self, ticket: Ticket, spool: Path, post: Post | None) -> RawResult:
        await self._until_ended(ticket)
        path = text(ticket.data.get("file"))
        content = await self._client.file(path) if path else None
        if content is None:
            raise await self._nothing_left(ticket, post)
        kind = self._sniffed(content)
        try:
            infotext = (await asyncio.to_thread(read_metadata, content)).infotext
        except (UnreadableFile, NotFound) as error:
            raise ProtocolError(self._alias, f"the file it saved is damaged: {error}") from error
        made = verify.read_made(infotext, None)
        warnings = await self._checked(ticket, made, kind)
        asset = await self._spooled(spool / f"0000{kind.suffix}", content, infotext, ticket)
        effective = {**_effective(ticket, made), "recovered": True}
        return RawResult(assets=(asset,), warnings=tuple(warnings), effective=effective)

    async def _until_ended(self, ticket: Ticket) -> None:
        """Follow a job without its connection.

        Raises:
            EngineUnreachable: The server stays away, or gives no means to look.
            ResultLost: It provably no longer has the job.
        """
        away_since: float | None = None
        while True:
            try:
                located = await self._follower.locate(ticket)
            except EngineAuthFailed:
                raise
            except EngineError as error:
                # Nonsense too: something else may stand in for a server that is starting.
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= RECONNECT_S:
                    raise EngineUnreachable(error.server, error.detail) from error
                await asyncio.sleep(POLL_S)
                continue
            away_since = None
            match located:
                case Located.DONE:
                    return
                case Located.GONE:
                    raise ResultLost(
                        self._alias,
                        "it no longer has the job: it was restarted, or never got it whole."
                        " It will be made again",
                    )
                case Located.UNKNOWN:
                    raise EngineUnreachable(
                        self._alias,
                        "the connection was lost, and this server gives no means to look for the"
                        " result (it runs with --nowebui, or its files cannot be read)",
                    )
                case _:
                    await asyncio.sleep(POLL_S)

    async def _nothing_left(self, ticket: Ticket, post: Post | None) -> EngineError:
        if post is not None and post.interrupted:
            return Interrupted(self._alias, "it was stopped there, as we asked")
        task = await self._client.task(ticket.remote_id)
        if task is not None and task.active:
            return JobFailed(
                self._alias,
                "it failed there, and the reason was lost with the connection."
                " See the server's console, then: stablequeue retry",
            )
        path = text(ticket.data.get("file"))
        locked = path and await self._client.file_status(path) == HTTPStatus.UNAUTHORIZED
        why = (
            "its files need the login of its web page; save that with --ui-username"
            if locked
            else "no picture was saved: it was interrupted, or its files cannot be read"
        )
        return ResultLost(self._alias, f"the connection was lost and {why}. It will be made again")

    # Both.

    async def _checked(self, ticket: Ticket, made: verify.Made, kind: Sniffed) -> list[str]:
        """Compare with what was asked; return warnings."""
        expected = mapping(ticket.data.get("expect"))
        if not text(expected.get("hash")) and made.hash:
            expected = {**expected, "hash": await self._learnt_hash(expected)}
        verify.check(self._alias, expected, made)
        size = verify.check_size(self._alias, expected.get("size"), (kind.width, kind.height))
        return [*filter(None, (size,)), *_format_warning(kind)]

    async def _learnt_hash(self, expected: JSON) -> str:
        """Return the hash of a file that had none before it was loaded: now the list has it.

        Base names of two folders can be equal; then only the hash tells them apart.
        """
        title = text(expected.get("title"))
        try:
            listed = await self._client.checkpoints() or []
        except EngineError:
            return ""
        for entry in listed:
            if title in {entry.name, entry.title}:
                return names.expected_hash("", entry)
        return ""

    def _read(self, shape: TypeAdapter[T], body: bytes | str) -> T:
        try:
            return answers.read(shape, body)
        except Nonsense as error:
            raise ProtocolError(self._alias, f"unexpected answer to a job: {error}") from error

    def _decoded(self, picture: str) -> bytes:
        try:
            return base64.b64decode(picture.rpartition(",")[2], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError(self._alias, "a picture in its answer is damaged") from error

    def _sniffed(self, content: bytes) -> Sniffed:
        try:
            return sniff(content)
        except UnreadableFile as error:
            raise ProtocolError(self._alias, f"its answer holds no picture: {error}") from error

    async def _spooled(
        self, target: Path, content: bytes, infotext: str, ticket: Ticket
    ) -> RawAsset:
        try:
            kind = await asyncio.to_thread(_keep, target, content)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreUnavailable(
                "spool", f"a result could not be written ({reason}); free some space"
            ) from error
        except UnreadableFile as error:
            raise ProtocolError(self._alias, f"a picture is cut off: {error}") from error
        name = names.base(names.path(text(ticket.data.get("file"))))
        return RawAsset(path=target, kind=kind.kind, mime=kind.mime, name=name, infotext=infotext)


def _keep(target: Path, content: bytes) -> Sniffed:
    """Write a picture, which appears only when it is whole and on the disk."""
    unfinished = target.with_name(target.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        kind = sniff(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return kind


def _format_warning(kind: Sniffed) -> tuple[str, ...]:
    if kind.mime == "image/png":
        return ()
    told = kind.mime.rpartition("/")[2].upper()
    return (f"the picture is {told} instead of PNG: somebody changed that setting during the run",)


def _effective(ticket: Ticket, made: verify.Made) -> JSON:
    """Say what was really used. `models`: name -> hash, empty where the server has none."""
    models = {made.model: made.hash, **made.loras, **dict.fromkeys(made.modules, "")}
    if made.vae:
        models[made.vae] = ""
    return {
        "models": {name: digest for name, digest in models.items() if name},
        "checkpoint": mapping(ticket.data.get("expect")).get("title", ""),
        "model": made.model,
        "model_hash": made.hash,
        "sampler": made.sampler,
        "scheduler": made.scheduler,
        "seed": made.seed,
        "clip_skip": made.clip_skip,
        "version": made.version,
    }
