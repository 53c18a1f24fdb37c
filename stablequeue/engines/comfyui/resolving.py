"""A request's references as one server's exact names, or a clear refusal. Nothing is guessed."""

from collections.abc import Sequence
from typing import Any

from stablequeue.engines import samplers
from stablequeue.engines.base import LoraUse, Resolution
from stablequeue.engines.comfyui import families, lora_tags, names
from stablequeue.engines.comfyui.answers import one_line, shown
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.engines.comfyui.families import Family
from stablequeue.engines.comfyui.graph import (
    IMAGE_UPSCALERS,
    LARGEST_SIDE,
    LATENT_UPSCALERS,
    hires_size,
)
from stablequeue.engines.comfyui.inventory import node_classes, read_lists
from stablequeue.engines.samplers import NoCounterpart
from stablequeue.errors import ModelMissing, Unsupported
from stablequeue.request import GenerationRequest, Lora, Mode

_OWN_VAE = {"", "automatic", "none", "baked vae"}  # what Forge's people write for "its own"
_USUAL_GUIDED_CFG = 1.0
_SHOWN = 40  # names listed in a refusal


class Resolver:
    """Resolves one request against what the server has now."""

    def __init__(self, client: ComfyClient, alias: str, request: GenerationRequest) -> None:
        self._client = client
        self._alias = alias
        self._request = request
        self._lists: dict[str, tuple[str, ...]] = {}
        self._notes: list[str] = []
        self._missing: list[ModelMissing] = []

    async def resolve(self) -> Resolution:
        """Return the server's exact names for a request whose mode is not workflow.

        Raises:
            ModelMissing: It lacks models; tells all of them.
            Unsupported: It cannot do this.
        """
        request = self._request
        self._refuse_what_cannot_be_done()
        upscaling = request.mode is Mode.UPSCALE
        prompt, negative, loras = self._prompts()
        fields: set[str] = set()
        if not upscaling:
            fields |= {"samplers", "schedulers", "unets" if request.unet else "checkpoints"}
            fields |= {"text_encoders"} if request.text_encoders else set()
            fields |= {"loras"} if loras else set()
            fields |= {"vaes"} if request.vae or request.unet else set()
        if upscaling or (request.hires.enabled and request.mode is Mode.TXT2IMG):
            fields.add("upscalers")
        self._lists = await read_lists(self._client, sorted(fields))

        upscaler, upscale_model = self._upscaler(upscaling=upscaling)
        detail: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
        detail["upscale_model"] = upscale_model
        if upscaling:
            self._need_models()
            return Resolution(upscaler=upscaler, detail=detail)

        checkpoint = "" if request.unet else self._checkpoint()
        unet = self._model("unets", "unet", request.unet) if request.unet else ""
        encoders = tuple(
            self._model("text_encoders", f"text_encoders.{place}", name)
            for place, name in enumerate(request.text_encoders)
        )
        vae = self._vae()
        found = tuple(
            LoraUse(
                name=self._model("loras", field, lora.name),
                weight=lora.weight,
                text_weight=lora.weight if lora.text_weight is None else lora.text_weight,
            )
            for field, lora in loras
        )
        self._need_models()
        family = await self._family(checkpoint, unet, encoders)
        sampler, scheduler = self._sampler(flow=family.flow)
        if family.guided and request.cfg_scale != _USUAL_GUIDED_CFG:
            self._notes.append(
                f"cfg_scale {request.cfg_scale:g} doubles the work; 1 is usual for {family.name}"
            )
        detail |= {"family": family.name, "notes": self._notes}
        await self._need_nodes(family, encoders)
        return Resolution(
            checkpoint=checkpoint,
            unet=unet,
            text_encoders=encoders,
            vae=vae,
            loras=found,
            sampler=sampler,
            scheduler=scheduler,
            upscaler=upscaler,
            detail=detail,
        )

    def _refuse_what_cannot_be_done(self) -> None:
        request = self._request
        if request.alwayson_scripts:
            raise self._unsupported(
                "alwayson_scripts", "these are Forge's extensions; choose a Forge server"
            )
        if request.mode is Mode.INPAINT:
            if request.inpaint.only_masked:
                raise self._unsupported(
                    "inpaint.only_masked", "it always works on the whole picture; leave it out"
                )
            if request.inpaint.fill == "latent noise":
                raise self._unsupported(
                    "inpaint.fill",
                    "it has no node that makes noise of a part",
                    ["original", "fill", "latent nothing"],
                )
        hires = request.hires
        if (
            hires.enabled
            and request.mode is Mode.TXT2IMG
            and max(hires_size(request)) > LARGEST_SIDE
        ):
            raise self._unsupported(
                "hires.scale", f"the second pass would exceed {LARGEST_SIDE} pixels a side"
            )

    def _prompts(self) -> tuple[str, str, list[tuple[str, Lora]]]:
        """Return both prompts without LoRA tags, and every LoRA with the field it came from."""
        found = [(f"loras.{n}.name", lora) for n, lora in enumerate(self._request.loras)]
        texts: list[str] = []
        for field in ("prompt", "negative_prompt"):
            try:
                split = lora_tags.split_tags(getattr(self._request, field))
            except lora_tags.BadTag as error:
                raise self._unsupported(field, str(error)) from error
            texts.append(split.text)
            found += [(field, lora) for lora in split.loras]
        return texts[0], texts[1], found

    def _checkpoint(self) -> str:
        if self._request.checkpoint:
            return self._model("checkpoints", "checkpoint", self._request.checkpoint)
        # ComfyUI has no "loaded" checkpoint: every graph names one.
        available = self._lists["checkpoints"]
        if len(available) != 1:
            raise self._unsupported(
                "checkpoint",
                "it has no checkpoint that counts as loaded, so name one",
                available or ["none are installed"],
            )
        self._notes.append(f"no checkpoint was named; the only one installed is {available[0]}")
        return available[0]

    def _vae(self) -> str:
        asked = self._request.vae
        if asked and asked in self._lists["vaes"]:
            return asked
        if asked.casefold().strip() not in _OWN_VAE:
            return self._model("vaes", "vae", asked)
        if self._request.unet:
            raise self._unsupported(
                "vae", "a separate image model needs a VAE; name one", self._lists["vaes"]
            )
        return ""

    async def _family(self, checkpoint: str, unet: str, encoders: Sequence[str]) -> Family:
        if unet and not encoders:
            raise self._unsupported(
                "text_encoders",
                "a separate image model needs its text encoders; name them",
                (await read_lists(self._client, ["text_encoders"]))["text_encoders"],
            )
        if not encoders:
            return families.by_name(checkpoint) or families.SD15
        folder = "diffusion_models" if unet else "checkpoints"
        told = await self._client.metadata(folder, unet or checkpoint)
        architecture = told.get("modelspec.architecture", "")
        try:
            return families.decide(
                unet or checkpoint,
                encoders,
                architecture if isinstance(architecture, str) else "",
            )
        except families.Undecided as error:
            raise self._unsupported("text_encoders", str(error)) from error

    def _sampler(self, *, flow: bool) -> tuple[str, str]:
        """Return sampler and scheduler: the server's own names first, the table second."""
        asked, asked_scheduler = self._request.sampler, self._request.scheduler
        available, schedulers = self._lists["samplers"], self._lists["schedulers"]
        sampler, scheduler = _own(asked, available), _own(asked_scheduler, schedulers)
        legacy_scheduler = samplers.split_legacy(asked)[1]
        usual = asked_scheduler.casefold() in {"", samplers.AUTOMATIC.casefold()}
        try:
            if flow and usual and not legacy_scheduler:
                scheduler = _own("simple", schedulers)
            if not sampler:
                sampler, translated = samplers.to_comfyui(
                    asked, "" if scheduler else asked_scheduler
                )
                scheduler = scheduler or translated
            elif not scheduler:
                scheduler = _scheduler_for(sampler, asked_scheduler)
        except NoCounterpart as error:
            offered = available if error.field == "sampler" else schedulers
            raise self._unsupported(error.field, str(error), offered) from error
        for field, name, offered in (
            ("sampler", sampler, available),
            ("scheduler", scheduler, schedulers),
        ):
            if name not in offered:
                raise self._unsupported(field, f"it has no {name!r}", offered)
        return sampler, scheduler

    def _upscaler(self, *, upscaling: bool) -> tuple[str, bool]:
        """Return the upscaler's name, and whether it is a model."""
        if "upscalers" not in self._lists:
            return "", False
        request = self._request
        name = request.upscale.upscaler if upscaling else request.hires.upscaler
        field = "upscale.upscaler" if upscaling else "hires.upscaler"
        available = self._lists["upscalers"]
        key = name.casefold().strip()
        known = IMAGE_UPSCALERS if upscaling else {**IMAGE_UPSCALERS, **LATENT_UPSCALERS}
        if name not in available and key in known:
            return name.strip(), False
        if name not in available and key.startswith("latent"):
            raise self._unsupported(field, f"it has no {name!r}", [*known, *available])
        return self._model("upscalers", field, name), True

    async def _need_nodes(self, family: Family, encoders: Sequence[str]) -> None:
        """Refuse early what an old server has no node for."""
        request = self._request
        needed: list[tuple[str, str]] = []
        if family.latent != families.SD15.latent and request.mode is Mode.TXT2IMG:
            needed.append(("unet" if request.unet else "checkpoint", family.latent))
        if request.mode is Mode.INPAINT:
            needed.append(("mode", "ImageCompositeMasked"))
            if request.inpaint.fill == "latent nothing":
                needed.append(("inpaint.fill", "LatentCompositeMasked"))
        if family.guided:
            needed.append(("guidance", "FluxGuidance"))
        if len(encoders) > 2:  # noqa: PLR2004 - one and two are as old as ComfyUI
            loader = "TripleCLIPLoader" if len(encoders) == 3 else "QuadrupleCLIPLoader"  # noqa: PLR2004
            needed.append(("text_encoders", loader))
        if not needed:
            return
        classes = await node_classes(self._client, [name for _, name in needed])
        for field, name in needed:
            if classes[name] is None:
                raise self._unsupported(field, f"it has no node {name}; update the server")

    def _model(self, listed: str, field: str, name: str) -> str:
        try:
            return names.find(name, self._lists[listed])
        except names.NoMatch as error:
            alike = [shown(suggestion) for suggestion in error.suggestions]
            self._missing.append(ModelMissing(self._alias, field, name, alike))
            return name

    def _need_models(self) -> None:
        """Refuse once everything was looked up, so that all that is missing is known at once."""
        if self._missing:
            raise ModelMissing.of(self._missing)

    def _unsupported(self, field: str, problem: str, allowed: Sequence[str] = ()) -> Unsupported:
        listed = [shown(name) for name in allowed[:_SHOWN]]
        return Unsupported(self._alias, field, one_line(problem), listed)


def _own(name: str, available: Sequence[str]) -> str:
    """Return the server's own spelling, if it lists the name; case does not matter."""
    if name in available:
        return name
    alike = [known for known in available if known.casefold() == name.casefold().strip()]
    return alike[0] if len(alike) == 1 else ""


def _scheduler_for(sampler: str, scheduler: str) -> str:
    """Return ComfyUI's name of a scheduler for one of the server's own samplers."""
    try:
        return samplers.to_comfyui(sampler, scheduler)[1]
    except NoCounterpart as error:
        if error.field == "scheduler":
            raise
    # A sampler from a custom node: any scheduler goes with it, and `normal` is the plain one.
    return samplers.to_comfyui("euler", scheduler)[1]
