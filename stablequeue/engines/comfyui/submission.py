"""Handing a job over: pictures, graph, one POST, and what to make of its answer.

`POST /prompt` is not idempotent: the same prompt_id twice is queued and run twice, and even a 500
can have queued it (scenario 15). So it is sent once, and a reply that is lost or in doubt is
settled by looking.
"""

import asyncio
import copy
import json
import time
from http import HTTPStatus
from typing import Any

import httpx

from stablequeue.editor_workflow import is_editor_format
from stablequeue.engines.base import EngineJob, Located, Ticket
from stablequeue.engines.comfyui import answers, pictures, workflow
from stablequeue.engines.comfyui.answers import NonsenseError
from stablequeue.engines.comfyui.client import ComfyClient, too_large
from stablequeue.engines.comfyui.following import Follower
from stablequeue.engines.comfyui.graph import LARGEST_SIDE, Inputs, build_graph, upscaled_size
from stablequeue.engines.comfyui.pictures import Picture
from stablequeue.engines.comfyui.rejections import rejection
from stablequeue.engines.comfyui.socket import ComfySocket
from stablequeue.engines.comfyui.together import together
from stablequeue.engines.comfyui.workflow_check import with_exact_names
from stablequeue.errors import (
    EngineBusy,
    EngineError,
    EngineUnreachable,
    JobRejected,
    ProtocolError,
    Unsupported,
)
from stablequeue.request import Mode
from stablequeue.servers import ServerConfig
from stablequeue.wire import check_access, log_in

_SOCKET_WAIT_S = 3.0  # without a socket there is polling
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_ASK_FOR_S = 10.0
_LOOK_AGAIN_S = (0.5, 1.0, 2.0, 5.0)


class Submitter:
    """Sends the jobs of one session."""

    def __init__(
        self,
        server: ServerConfig,
        client: ComfyClient,
        socket: ComfySocket,
        follower: Follower,
    ) -> None:
        self._server = server
        self._client = client
        self._socket = socket
        self._follower = follower
        self._tried: set[str] = set()
        self._last_number = -1.0
        self._largest_upload: int | None = None

    async def submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        """Hand a job over; return the ticket to follow."""
        with self._follower.sending(ticket.remote_id):
            return await self._submit(ticket, job)

    async def _submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        if ticket.remote_id in self._tried:
            return await self._settle(ticket, "it was sent before")
        graph = await self.prepare(ticket, job)
        # Messages go to the client id named here, and nowhere if it is not connected yet.
        await self._socket.ready(_SOCKET_WAIT_S)
        tracker = self._socket.listen(ticket.remote_id)
        tracker.expect(graph)
        self._socket.posting(tracker)
        body = self._encoded(ticket, job, graph)
        self._tried.add(ticket.remote_id)
        try:
            response = await self._client.post_prompt(body)
        except EngineUnreachable as error:
            if isinstance(error.__cause__, _NOT_SENT):
                self._tried.discard(ticket.remote_id)
                raise
            return await self._settle(ticket, error.detail)
        return await self._answered(ticket, response)

    async def prepare(self, ticket: Ticket, job: EngineJob) -> answers.JSON:
        """Upload a job's pictures and return its graph."""
        init, mask = await asyncio.to_thread(self._read_pictures, job)
        init_name, mask_name = await together(self._uploaded(picture) for picture in (init, mask))
        inputs = Inputs(
            init_image=init_name,
            mask_image=mask_name,
            width=init.width if init else 0,
            height=init.height if init else 0,
        )
        if job.request.mode is Mode.WORKFLOW:
            return workflow_graph(job, inputs, ticket.data["folder"])
        if job.request.mode is Mode.UPSCALE:
            self._check_size(job, inputs)
        return build_graph(job, inputs, f"{ticket.data['folder']}/img")

    async def _uploaded(self, picture: Picture | None) -> str:
        if picture is None:
            return ""
        if self._largest_upload is None:
            features = await self._client.features()
            self._largest_upload = answers.whole(features.get("max_upload_size"))
        if 0 < self._largest_upload < len(picture.data):
            # Asked first: a server that stops reading in the middle resets the connection.
            raise too_large(self._server.alias, len(picture.data))
        return await self._client.upload(picture.name, picture.data, picture.mime)

    def _read_pictures(self, job: EngineJob) -> tuple[Picture | None, Picture | None]:
        alias, request = self._server.alias, job.request
        init = job.inputs.get("init_image") if request.init_image else None
        mask = job.inputs.get("mask_image") if request.mask_image else None
        first = pictures.read_picture(alias, "init_image", init) if init else None
        if mask is None or request.mode not in {Mode.INPAINT, Mode.WORKFLOW}:
            return first, None
        if request.mode is Mode.WORKFLOW:
            return first, pictures.read_picture(alias, "mask_image", mask)
        size = (request.width, request.height)
        return first, pictures.read_mask(alias, mask, size=size, inpaint=request.inpaint)

    def _check_size(self, job: EngineJob, inputs: Inputs) -> None:
        largest = max(upscaled_size(job.request, inputs.width, inputs.height))
        if largest > LARGEST_SIDE:
            raise Unsupported(
                self._server.alias,
                "upscale.scale",
                f"the picture would have {largest} pixels a side; {LARGEST_SIDE} is the most",
            )

    def _encoded(self, ticket: Ticket, job: EngineJob, graph: answers.JSON) -> bytes:
        section = job.request.sections.comfyui
        edited = job.request.workflow if is_editor_format(job.request.workflow) else None
        extra: dict[str, Any] = {
            "extra_pnginfo": {
                **({"workflow": edited} if edited else {}),
                **(section.extra_pnginfo if section else {}),
                "stablequeue": {
                    "job": job.job_id,
                    "index": job.index,
                    "attempt": job.attempt,
                    "seed": seed_of(job, graph),
                },
            }
        }
        if section and section.preview_method:
            extra["preview_method"] = section.preview_method  # older servers ignore it
        body = {
            "prompt": graph,
            "prompt_id": ticket.remote_id,
            "client_id": self._socket.client_id,
            "extra_data": extra,
        }
        try:
            return json.dumps(body, allow_nan=False).encode()
        except ValueError as error:
            raise JobRejected(
                self._server.alias, f"the job holds a number that JSON cannot say ({error})"
            ) from error

    async def _answered(self, ticket: Ticket, response: httpx.Response) -> Ticket:
        status, alias = response.status_code, self._server.alias
        said = answers.one_line(response.text, 160)
        match status:
            case HTTPStatus.OK:
                return await self._accepted(ticket, response)
            case HTTPStatus.BAD_REQUEST:
                raise rejection(alias, _object(response.content) or {"error": said})
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise JobRejected(
                    alias,
                    "the job is too large for it; raise --max-upload-size there, or the limit of"
                    " the proxy before it",
                )
            case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return await self._settle(ticket, f"it answered {status} ({said})", status)
            case _:
                check_access(self._server, response)
                raise ProtocolError(
                    alias,
                    f"unexpected status {status} to a job ({said or 'empty'})."
                    f" Is there a ComfyUI at {self._server.base_url}?",
                )

    async def _accepted(self, ticket: Ticket, response: httpx.Response) -> Ticket:
        try:
            accepted = answers.parse_accepted(answers.parse_json(response.content))
        except NonsenseError as error:
            return await self._settle(ticket, f"its answer to the job was damaged: {error}", 200)
        if accepted.prompt_id != ticket.remote_id:
            # Servers before 0.3.45 choose the id themselves.
            self._follower.forget(ticket.remote_id)
            self._socket.posting(self._socket.listen(accepted.prompt_id))
            ticket = Ticket(engine=ticket.engine, remote_id=accepted.prompt_id, data=ticket.data)
        ticket = Ticket(
            engine=ticket.engine,
            remote_id=ticket.remote_id,
            data={**ticket.data, "client_id": self._socket.client_id},
        )
        if accepted.node_errors:
            # Some outputs were dropped and the rest would run, and end as a success.
            await self._withdraw(ticket.remote_id)
            raise rejection(self._server.alias, {"node_errors": accepted.node_errors})
        if accepted.number < self._last_number:
            log_in(self._server, "its numbers start again: it was restarted")
            self._follower.wake()
        self._last_number = accepted.number
        return ticket

    async def _withdraw(self, prompt_id: str) -> None:
        """Take back what must not run. An interrupt can get lost, so it is repeated."""
        for pause in (0.0, 0.3, 0.6, 1.2, 2.4):
            await asyncio.sleep(pause)
            try:
                await self._client.delete(prompt_id)
                look = await self._follower.look(prompt_id)
                if look.item is None:
                    break
                if look.running:
                    await self._client.interrupt(prompt_id)
            except EngineError as error:
                log_in(self._server, f"taking a job back failed: {error}")
        self._follower.forget(prompt_id)

    async def _settle(self, ticket: Ticket, why: str, status: int = 0) -> Ticket:
        """Look whether the server took a job whose answer is in doubt.

        Raises:
            EngineUnreachable: It did not take it.
            JobRejected: It did not, and its answer was 500: it stumbled over this job.
            ProtocolError: It did not, and its answer was nonsense.
        """
        alias = self._server.alias
        began = time.monotonic()
        tries = 0
        while True:
            try:
                located = await self._follower.locate(ticket.remote_id)
                break
            except (EngineUnreachable, EngineBusy) as error:
                if time.monotonic() - began > _ASK_FOR_S:
                    # In doubt it has it: whoever collects goes on asking, and never sends again.
                    log_in(self._server, f"whether it took the job cannot be asked: {error}")
                    return ticket
                await asyncio.sleep(_LOOK_AGAIN_S[min(tries, len(_LOOK_AGAIN_S) - 1)])
                tries += 1
        if located is not Located.GONE:
            data = {**ticket.data, "client_id": self._socket.client_id}
            return Ticket(engine=ticket.engine, remote_id=ticket.remote_id, data=data)
        self._follower.forget(ticket.remote_id)
        if status == HTTPStatus.OK:
            raise ProtocolError(alias, why)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            raise JobRejected(alias, f"it did not take the job: {why}. See the server's own log")
        raise EngineUnreachable(alias, f"it did not take the job: {why}")


def graph_of(job: EngineJob) -> answers.JSON:
    """Return the workflow of a job in API format."""
    return job.resolution.graph or job.request.workflow


def overrides_of(job: EngineJob) -> answers.JSON:
    """Return the overrides of a job as they name inputs of that workflow."""
    inside = answers.mapping(job.resolution.detail.get("inside"))
    return workflow.named_inside(job.request.overrides, inside)


def seeded_workflow(job: EngineJob) -> answers.JSON:
    """Return the workflow of a job with its overrides and this picture's seed."""
    overrides = overrides_of(job)
    graph = workflow.with_overrides(graph_of(job), overrides)
    workflow.with_seed(
        graph,
        seed=job.seed,
        asked=not job.request.keeps_own_seeds,
        index=job.index,
        kept=[workflow.find_input(graph, name) for name in overrides],
    )
    return graph


def seed_of(job: EngineJob, graph: answers.JSON) -> int:
    """Return the seed that makes the picture: a workflow's own, unless one is asked for."""
    own = workflow.seed_of(graph) if job.request.mode is Mode.WORKFLOW else None
    return job.seed if own is None else own


def workflow_graph(job: EngineJob, inputs: Inputs, folder: str) -> answers.JSON:
    """Return the graph of a job whose mode is workflow."""
    graph = seeded_workflow(job)
    with_exact_names(graph, answers.mapping(copy.deepcopy(job.resolution.detail.get("exact"))))
    for node_id, key, field in list(workflow.placeholders(graph)):
        graph[node_id]["inputs"][key] = getattr(inputs, field)
    workflow.with_prefixes(graph, folder)
    return graph


def _object(body: bytes) -> answers.JSON:
    try:
        return answers.mapping(answers.parse_json(body))
    except NonsenseError:
        return {}
