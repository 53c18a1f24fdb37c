"""Runs one prompt: messages, cache, progress, interrupts and errors in the real server's order.

Source: recordings [10], [11], [18], [20] of ComfyUI 0.3.64.
"""

import asyncio
import traceback
from dataclasses import replace
from typing import Any

from stablequeue.sandbox.comfyui.caching import Cache, Key, keys_of
from stablequeue.sandbox.comfyui.folders import Folders
from stablequeue.sandbox.comfyui.hub import Hub
from stablequeue.sandbox.comfyui.nodes import NODES
from stablequeue.sandbox.comfyui.nodes.table import Inputs, Made, Preview
from stablequeue.sandbox.comfyui.ordering import Agenda, as_link
from stablequeue.sandbox.comfyui.progress import Progress
from stablequeue.sandbox.comfyui.queue import Item
from stablequeue.sandbox.comfyui.values import OUT_OF_MEMORY, Model, NodeFailed, type_name
from stablequeue.sandbox.faults import Fault, FaultKind
from stablequeue.sandbox.models import ModelShelf
from stablequeue.sandbox.state import SandboxState

PROTOCOL = "comfyui"
JSON = dict[str, Any]
_MB_PER_MEGAPIXEL = 400  # what sampling takes beside the model, roughly as SDXL does


class Interrupted(Exception):
    """Somebody pressed the button."""


class Executor:
    """The part of the server that works on prompts, one at a time.

    Attributes:
        interrupted: The button. Cleared when a prompt starts, and when it takes effect.
        history_result: What the last prompt leaves in the history.
        messages: Its status messages, as (event, data).
        success: Whether it ended well.
    """

    def __init__(self, state: SandboxState, hub: Hub, folders: Folders) -> None:
        self.state, self.hub, self._folders = state, hub, folders
        self.interrupted = False
        self.cache = Cache()
        self.history_result: JSON = {}
        self.messages: list[tuple[str, JSON]] = []
        self.success = True
        self.previews = state.config.previews
        self._condemned: set[str] = set()

    @property
    def models(self) -> ModelShelf:
        """The model files."""
        return self.state.models

    @property
    def folders(self) -> Folders:
        """Where pictures come from and go to."""
        return self._folders

    def interrupt_surely(self, prompt_id: str) -> None:
        """Stop a running prompt also if it is about to start; newer servers can."""
        self._condemned.add(prompt_id)
        self.interrupted = True

    def forget(self) -> None:
        """Drop the cache, as `POST /free` has it done."""
        self.cache = Cache()

    async def run(self, item: Item) -> None:
        """Run a prompt to its end; nothing a workflow does is raised from here."""
        _, prompt_id, prompt, extra, outputs = item
        # an interrupt that came before this moment is lost ([18])
        self.interrupted = prompt_id in self._condemned
        self._condemned.clear()
        self.hub.client_id = extra.get("client_id")
        self.messages, self.success = [], True
        self.previews = self._preview_method(extra)
        self._tell("execution_start", {"prompt_id": prompt_id})
        run = _Run(self, prompt_id, prompt, extra)
        self._tell("execution_cached", {"nodes": run.cached(), "prompt_id": prompt_id})
        owner = self.state.owner(PROTOCOL)
        with self.state.card.generating(owner, prompt_id):
            await run.to_the_end(outputs)
        self.hub.last_node = None
        told = {n: self.cache.told[k] for n, k in run.keys.items() if k in self.cache.told}
        self.history_result = {
            "outputs": {node_id: entry["output"] for node_id, entry in told.items()},
            "meta": {node_id: entry["meta"] for node_id, entry in told.items()},
        }

    def _preview_method(self, extra: JSON) -> str:
        wanted = extra.get("preview_method")
        if self.state.config.newer_comfyui and wanted in {"none", "auto", "latent2rgb", "taesd"}:
            return str(wanted)
        return self.state.config.previews

    def _tell(self, event: str, data: JSON, *, everybody: bool = False) -> None:
        data = data | {"timestamp": int(self.state.wall() * 1000)}
        self.messages.append((event, data))
        if self.hub.client_id is not None or everybody:
            self.hub.send(event, data, self.hub.client_id)

    def succeeded(self, prompt_id: str) -> None:
        """Tell the good end."""
        self._tell("execution_success", {"prompt_id": prompt_id})

    def failed(self, told: JSON, *, interrupted: bool) -> None:
        """Tell the bad end; that of an interrupted prompt without client goes to everybody."""
        self.success = False
        event = "execution_interrupted" if interrupted else "execution_error"
        self._tell(event, told, everybody=interrupted)


class _Run:
    """One prompt being run."""

    def __init__(self, executor: Executor, prompt_id: str, prompt: JSON, extra: JSON) -> None:
        self.executor, self.prompt_id, self.prompt = executor, prompt_id, prompt
        self.extra_pnginfo = extra.get("extra_pnginfo")
        self.progress = Progress(executor.hub, prompt_id)
        self.keys: dict[str, Key] = keys_of(executor, prompt)
        self.executed: list[str] = []
        executor.cache.keep(set(self.keys.values()))

    def is_cached(self, node_id: str) -> bool:
        return self.keys.get(node_id) in self.executor.cache.values

    def cached(self) -> list[str]:
        return [node_id for node_id in self.prompt if self.is_cached(node_id)]

    async def to_the_end(self, outputs: list[str]) -> None:
        """Run node after node; tell how it ended."""
        executor = self.executor
        current: str | None = None
        try:
            agenda = Agenda(self.prompt, outputs, self.is_cached)
            self.act(await executor.state.strike("start", PROTOCOL), "start")
            while (current := agenda.next()) is not None:
                await self.node(current)
                agenda.done(current)
                await asyncio.sleep(0)
        except Interrupted:
            executor.failed(self._about(current), interrupted=True)
        except Exception as error:  # noqa: BLE001 - a server reports whatever a node raises
            if type_name(error) == OUT_OF_MEMORY:
                executor.state.card.unload(executor.state.owner(PROTOCOL))
            executor.failed(self._about(current) | self._error(error, current), interrupted=False)
        else:
            await executor.state.strike("end", PROTOCOL)
            executor.succeeded(self.prompt_id)

    async def node(self, node_id: str) -> None:
        """Run one node, or tell again what it told before."""
        hub, cache, key = self.executor.hub, self.executor.cache, self.keys[node_id]
        if key in cache.values:
            self._tell_executed(node_id, cache.told.get(key, {}).get("output"))
            self.progress.finish(node_id)
            return
        self.progress.start(node_id)
        told = {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id}
        if hub.client_id is not None:
            hub.last_node = node_id
            hub.send("executing", told, hub.client_id)
        inputs = self.inputs(node_id)
        self.check_interrupted()
        known = NODES[self.prompt[node_id]["class_type"]]
        made: Made = await known.run(_NodeCall(self, node_id), inputs)
        if made.ui:
            meta = {
                "node_id": node_id,
                "display_node": node_id,
                "parent_node": None,
                "real_node_id": node_id,
            }
            cache.told[key] = {"meta": meta, "output": made.ui}
            self._tell_executed(node_id, made.ui)
        cache.values[key] = made.values
        self.progress.finish(node_id)
        self.executed.append(node_id)

    def inputs(self, node_id: str) -> Inputs:
        """Return the values of a node's declared inputs."""
        node = self.prompt[node_id]
        known = NODES[node["class_type"]]
        declared = known.required(self.executor) | known.optional(self.executor)
        given: Inputs = {}
        for name in declared:
            if name not in node["inputs"]:
                continue
            link = as_link(node["inputs"][name])
            if link is None:
                given[name] = node["inputs"][name]
            else:
                given[name] = self.executor.cache.values[self.keys[link[0]]][link[1]]
        return given

    def check_interrupted(self) -> None:
        """Raise if the button was pressed, and let it go."""
        if self.executor.interrupted:
            self.executor.interrupted = False
            raise Interrupted

    def act(self, faults: list[Fault], place: str) -> frozenset[str]:
        """Act out faults that concern the whole prompt; return the kinds left to the node."""
        for fault in faults:
            match fault.kind:
                case FaultKind.OUT_OF_MEMORY:
                    raise NodeFailed(
                        OUT_OF_MEMORY,
                        "Allocation on device 0 would exceed allowed memory. (out of memory)",
                    )
                case FaultKind.ERROR:
                    raise NodeFailed("RuntimeError", fault.body or f"injected at {place}")
                case FaultKind.INTERRUPT:
                    self.executor.interrupted = True
                case _:
                    continue
        return frozenset(str(fault.kind) for fault in faults)

    def _tell_executed(self, node_id: str, output: JSON | None) -> None:
        hub = self.executor.hub
        if hub.client_id is None:
            return
        told = {"node": node_id, "display_node": node_id, "output": output}
        hub.send("executed", told | {"prompt_id": self.prompt_id}, hub.client_id)

    def _about(self, node_id: str | None) -> JSON:
        named = node_id or next(iter(self.prompt))
        return {
            "prompt_id": self.prompt_id,
            "node_id": named,
            "node_type": self.prompt[named]["class_type"],
            "executed": list(self.executed),
        }

    def _error(self, error: Exception, node_id: str | None) -> JSON:
        try:
            current = self.inputs(node_id) if node_id else {}
        except LookupError:
            current = {}
        return {
            "exception_message": f"{error}\n",
            "exception_type": type_name(error),
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_told(value)] for name, value in current.items()},
            "current_outputs": list(self.prompt),
        }


class _NodeCall:
    """What one running node may use; see `nodes.table.Call`."""

    def __init__(self, run: _Run, node_id: str) -> None:
        self._run = run
        self.node_id = node_id
        self.prompt = run.prompt
        self.extra_pnginfo: Any = run.extra_pnginfo

    @property
    def host(self) -> Executor:
        """The server's models and files."""
        return self._run.executor

    async def load(self, model: Model) -> Model:
        """Bring a model onto the card, spending its swap time.

        Raises:
            CardOutOfMemory: It does not fit.
        """
        state = self.host.state
        acting = self._run.act(await state.strike("load", PROTOCOL), "load")
        if state.card.load(state.owner(PROTOCOL), model.name, model.file.size_mb):
            await asyncio.sleep(model.file.load_seconds)
        if FaultKind.WRONG_MODEL in acting:
            return replace(model, painted_as="another model")
        return model

    async def reserve(self, width: int, height: int, count: int) -> None:
        """Check that sampling pictures of this size fits beside the models.

        Raises:
            NodeFailed: It does not.
        """
        needed = width * height * count * _MB_PER_MEGAPIXEL // 1_000_000
        free = self.host.state.card.free_mb
        if needed > free:
            raise NodeFailed(
                OUT_OF_MEMORY,
                f"Allocation on device 0 would exceed allowed memory. (out of memory)\n"
                f"Currently allocated: {self.host.state.card.memory_mb - free} MiB\n"
                f"Requested: {needed} MiB",
            )

    async def step(self, number: int) -> None:
        """Spend one step; faults and interrupts take effect here."""
        faults = await self.host.state.step(number, PROTOCOL)
        self._run.act(faults, f"step {number}")
        self._run.check_interrupted()

    async def strike(self, place: str) -> frozenset[str]:
        """Let faults for a place happen; return the kinds the node must act out."""
        return self._run.act(await self.host.state.strike(place, PROTOCOL), place)

    async def progress(self, value: int, maximum: int, preview: Preview | None = None) -> None:
        """Tell how far the node is."""
        self._run.check_interrupted()
        self._run.progress.update(self.node_id, value, maximum, preview)
        await asyncio.sleep(0)

    def wants_previews(self) -> bool:
        """Say whether previews are made at all."""
        return self.host.previews != "none"

    def note(self, what: str, **facts: Any) -> None:
        """Write to the journal."""
        self.host.state.note(what, prompt_id=self._run.prompt_id, node=self.node_id, **facts)


def _told(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
