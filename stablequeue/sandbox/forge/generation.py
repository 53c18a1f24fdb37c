"""One job: from its request to its pictures, behind the lock, with everything that can go wrong."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from PIL import Image

from stablequeue.sandbox.faults import Fault, FaultKind
from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.checkpoints import Checkpoint
from stablequeue.sandbox.forge.files import Naming
from stablequeue.sandbox.forge.infotext import info_json, infotext
from stablequeue.sandbox.forge.options import CHECKPOINT
from stablequeue.sandbox.forge.payloads import AnyPayload, Img2ImgPayload
from stablequeue.sandbox.forge.pictures import encode, grid, stealth
from stablequeue.sandbox.forge.plan import Circumstances, Plan, make_plan
from stablequeue.sandbox.forge.server import PROTOCOL, ForgeServer, out_of_memory
from stablequeue.sandbox.painter import Card, paint, preview

_MB_PER_MEGAPIXEL = 1_024
_PREVIEW_SHRINKS = 4


@dataclass(kw_only=True)
class Shot:
    """One picture of an answer. `path` is None when it was not saved."""

    picture: Image.Image
    infotext: str
    path: Path | None = None


@dataclass(kw_only=True)
class Result:
    """What a job made; `info` as the answer tells it."""

    shots: list[Shot]
    info: str
    plan: Plan

    @property
    def infotext(self) -> str:
        """Infotext of the first picture."""
        return infotext(self.plan)


@dataclass
class Generation:
    """One job. `task` is its id; `start` and `mask` are decoded pictures."""

    server: ForgeServer
    payload: AnyPayload
    task: str
    start: Sequence[Image.Image] = ()
    mask: Image.Image | None = None
    _other_model: str | None = None
    _partial: bool = False
    _lose: bool = False
    _shots: list[Shot] = field(default_factory=list[Shot])

    async def run(self) -> Result:
        """Make the pictures. The caller holds the lock and begins and ends the job.

        Raises:
            Failure: Whatever the recorded server raises.
            Refusal: A picture cannot be encoded as the options want it.
        """
        server, state = self.server, self.server.state
        state.note("forge.start", task=self.task)
        with state.card.generating(state.owner(PROTOCOL), self.task):
            self._act(await state.strike("start", PROTOCOL))
            # An unknown checkpoint is taken out of the request itself: its echo lacks the key.
            wanted = self.payload.override_settings or {}
            if server.shelf.find(wanted.get(CHECKPOINT)) is None:
                wanted.pop(CHECKPOINT, None)
            before = server.options.present(wanted)
            try:
                server.options.apply(wanted)
                checkpoint = await self._load(server.selected())
                result = await self._make(checkpoint)
            finally:
                if self.payload.override_settings_restore_afterwards:
                    server.options.restore(before)
            self._act(await state.strike("end", PROTOCOL))
        state.note("forge.end", task=self.task, pictures=len(result.shots))
        return result

    def _act(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            match fault.kind:
                case FaultKind.OUT_OF_MEMORY:
                    raise out_of_memory("Tried to allocate more than there is.")
                case FaultKind.ERROR:
                    raise Failure("RuntimeError", fault.body or "the sandbox was told to fail")
                case FaultKind.WRONG_MODEL:
                    self._other_model = fault.body
                case FaultKind.PARTIAL:
                    self._partial = True
                case FaultKind.INTERRUPT:
                    self.server.job.interrupted = True
                case FaultKind.LOSE_RESULT:
                    self._lose = True
                case _:
                    pass

    async def _load(self, wanted: Checkpoint) -> Checkpoint:
        chosen = self._swapped(wanted)
        loaded, faults = await self.server.load(chosen)
        self._act(faults)
        other = self._swapped(wanted)
        if other.file != chosen.file:  # the fault struck while loading
            loaded, _ = await self.server.load(other)
        return loaded

    def _swapped(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint to use: another one after a WRONG_MODEL fault."""
        if self._other_model is None:
            return checkpoint
        named = self.server.shelf.find(self._other_model)
        if named is not None:
            return named
        others = [c for c in self.server.shelf.checkpoints if c.file != checkpoint.file]
        return others[0] if others else checkpoint

    async def _make(self, checkpoint: Checkpoint) -> Result:
        server, job = self.server, self.server.job
        if isinstance(self.payload, Img2ImgPayload) and not self.start:
            message = "Dimension out of range (expected to be in range of [-1, 0], but got 1)"
            raise Failure("IndexError", message)
        circumstances = Circumstances(
            checkpoint=checkpoint,
            shelf=server.shelf,
            options=server.options,
            settings=server.settings,
            rng=server.rng,
        )
        plan = make_plan(self.payload, circumstances)
        job.job_count = plan.n_iter * len(plan.passes)
        for iteration in range(plan.n_iter):
            job.skipped = False
            if job.interrupted:
                break
            await self._follow_options(plan)
            if plan.n_iter > 1:
                job.job = f"Batch {iteration + 1} out of {plan.n_iter}"
            await self._iterate(plan, iteration)
            job.next_pass()
        if self._partial:
            del self._shots[-1:]
        first = await self._add_grid(plan)
        info = info_json(
            plan,
            infotexts=[shot.infotext for shot in self._shots],
            index_of_first_image=first,
            job_timestamp=job.job_timestamp,
        )
        return Result(shots=self._shots, info=info, plan=plan)

    async def _follow_options(self, plan: Plan) -> None:
        """Load another checkpoint chosen meanwhile; what is told keeps the first one's name."""
        wanted = self.server.selected()
        loaded = self.server.loaded
        if self._other_model is None and loaded is not None and wanted.file != loaded.file:
            await self.server.load(wanted)
            self.server.state.note("forge.stall", task=self.task, labelled=plan.checkpoint.name)

    async def _iterate(self, plan: Plan, iteration: int) -> None:
        server, job = self.server, self.server.job
        cards = [
            self._card(plan, iteration * plan.batch_size + k, k) for k in range(plan.batch_size)
        ]
        width, height = plan.target
        needed = width * height * plan.batch_size * _MB_PER_MEGAPIXEL // 1_000_000
        if needed > max(server.state.card.free_mb, _MB_PER_MEGAPIXEL):
            raise out_of_memory(f"Tried to allocate {needed} MiB.")
        fraction = await self._sample(plan, cards[0])
        self._act(await server.state.strike("decode", PROTOCOL))
        if plan.fails_at_end:
            raise Failure("ZeroDivisionError", "division by zero")
        whole = not (job.interrupted or job.skipped)
        for k, card in enumerate(cards):
            index = iteration * plan.batch_size + k
            if whole:
                picture = await asyncio.to_thread(paint, card)
            else:
                picture = await asyncio.to_thread(preview, card, fraction)
            shot = Shot(picture=picture, infotext=infotext(plan, index))
            if self._saves(whole=whole):
                await self._save(plan, shot, index)
            self._shots.append(shot)

    async def _sample(self, plan: Plan, card: Card) -> float:
        """Spend the steps; return how much of the last pass was done."""
        job = self.server.job
        small = replace(
            card,
            width=max(1, card.width // _PREVIEW_SHRINKS),
            height=max(1, card.height // _PREVIEW_SHRINKS),
        )
        done = 0.0
        for number, steps in enumerate(plan.passes):
            if number:
                job.next_pass()
            job.sampling_steps, job.sampling_step = steps, 0
            job.see = lambda steps=steps: preview(small, job.sampling_step / steps).convert("RGBA")
            for step in range(steps):
                self._act(await self.server.state.step(step + 1, PROTOCOL))
                job.sampling_step = step
                done = (step + 1) / steps
                if job.interrupted or job.skipped:
                    return done
        return done

    def _card(self, plan: Plan, index: int, place: int) -> Card:
        told = plan.extra.get("Schedule type", plan.scheduler)
        mode = "inpaint" if self.mask is not None else plan.kind
        return Card(
            prompt=plan.prompt,
            negative=plan.negative,
            seed=plan.seeds[index] if not plan.subseed_strength else plan.subseeds[index],
            width=plan.target[0],
            height=plan.target[1],
            model=plan.checkpoint.base_name,
            sampler=plan.sampler,
            scheduler=str(told),
            steps=plan.steps,
            cfg=plan.cfg_scale,
            loras=plan.loras,
            mode=mode,
            init=self.start[place % len(self.start)] if self.start else None,
            mask=self.mask,
            denoise=1.0 if plan.denoise is None else plan.denoise,
            label="StableQueue sandbox, Forge",
        )

    def _saves(self, *, whole: bool) -> bool:
        options = self.server.options
        wanted = self.payload.save_images and bool(options["samples_save"])
        return wanted and (whole or bool(options["save_incomplete_images"]))

    async def _save(self, plan: Plan, shot: Shot, index: int) -> None:
        server = self.server
        self._act(await server.state.strike("save", PROTOCOL))
        kind = server.options.text("samples_format") or "png"
        raw = await self._finished(shot, kind)
        shot.path = server.files.save(raw, self._naming(plan, index), f".{kind}")
        if self._lose:
            shot.path.unlink(missing_ok=True)
        server.state.note("forge.saved", task=self.task, name=shot.path.name, lost=self._lose)

    async def _finished(self, shot: Shot, kind: str) -> bytes:
        """Return a saved picture's bytes; saving as PNG makes the picture itself RGBA."""
        hides = self.server.settings.is_forge and kind.lower() == "png"
        if hides and self.server.options["stealth_pnginfo_option"] == "Alpha":
            shot.picture = stealth(shot.picture, shot.infotext)
        return await asyncio.to_thread(encode, shot.picture, kind, shot.infotext)

    def _naming(self, plan: Plan, index: int) -> Naming:
        return Naming(
            plan=plan,
            number=index + 1,
            seed=plan.seeds[index],
            job_timestamp=self.server.job.job_timestamp,
            now=datetime.fromtimestamp(self.server.state.wall()),  # noqa: DTZ006 - local time
        )

    async def _add_grid(self, plan: Plan) -> int:
        """Put a grid first, if there is to be one; return the place of the first picture."""
        options = self.server.options
        several = len(self._shots) > 1 or not options["grid_only_if_multiple"]
        wanted = options["return_grid"] or options["grid_save"]
        if not (self.payload.save_images and wanted and several and self._shots):
            return 0
        whole = await asyncio.to_thread(grid, [shot.picture for shot in self._shots])
        shot = Shot(picture=whole, infotext=infotext(plan))
        if options["grid_save"]:
            kind = options.text("grid_format") or "png"
            raw = await self._finished(shot, kind)
            naming = self._naming(plan, 0)
            shot.path = self.server.files.save_grid(raw, naming, f".{kind}")
        if not options["return_grid"]:
            return 0
        self._shots.insert(0, shot)
        return 1
