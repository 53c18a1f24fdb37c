"""A request's references turned into one server's own names, or refused.

The server checks next to nothing itself (see `names` and `sampling`), so everything a request
names is looked up here: models, samplers, upscalers, scripts, styles, LoRA tags in the prompt.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stablequeue.engines.base import LoraUse, Resolution
from stablequeue.engines.forge import names, options, payload, sampling
from stablequeue.engines.forge.answers import JSON, Checkpoint, LoraFile, ModelFile, mapping, text
from stablequeue.engines.forge.names import NoMatch
from stablequeue.engines.forge.session import Session
from stablequeue.errors import EngineError, ModelMissing, Unsupported
from stablequeue.request import GenerationRequest, Lora, Mode

FORGE, AUTOMATIC1111 = "forge", "automatic1111"

_MOST_CLIP_SKIP = 12
_NO_VAE = {"", "none", "automatic", "built in"}
_TAG = re.compile(r"<lora:([^:>]+)((?::[^>]*)?)>")
_UNWRITABLE = set(":<>=")
_LANCZOS = "Lanczos"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The model to use; `modules` is None when the request leaves them to the checkpoint."""

    checkpoint: Checkpoint
    digest: str
    modules: tuple[str, ...] | None = None


class Resolver:
    """Resolves one request on one server; asks for each list at most once."""

    def __init__(self, session: Session, request: GenerationRequest) -> None:
        self._session, self._client = session, session.client
        self._request = request
        self._alias = session.alias
        self._section = request.sections.forge
        self._missing: list[ModelMissing] = []

    async def resolve(self) -> Resolution:
        """Look everything up.

        Raises:
            ModelMissing: It lacks models; tells all of them, with suggestions.
            Unsupported: It cannot do what the request asks.
            EngineBusy: It is still starting.
        """
        request = self._request
        if request.mode is Mode.WORKFLOW:
            raise self._cannot("mode", "ComfyUI workflows run on ComfyUI only")
        if request.clip_skip > _MOST_CLIP_SKIP:
            raise self._cannot("clip_skip", f"its CLIP has {_MOST_CLIP_SKIP} layers")
        checkpoints = await self._session.checkpoints()
        if request.mode is Mode.UPSCALE:
            return await self._resolve_upscale()
        return await self._resolve_picture(checkpoints)

    async def _resolve_upscale(self) -> Resolution:
        wanted = self._request.upscale.upscaler or _LANCZOS
        offered = [name for name in await self._client.upscalers() if name != "None"]
        upscaler = self._model(wanted, offered, "upscale.upscaler")
        self._need_models()
        boot = await self._session.boot()
        detail: JSON = {"kind": "upscale", "webui": bool(boot.id)}
        return Resolution(upscaler=upscaler, detail=detail)

    async def _resolve_picture(self, checkpoints: Sequence[Checkpoint]) -> Resolution:
        request, client = self._request, self._client
        modules, told, samplers, schedulers = await asyncio.gather(
            client.modules(), client.options(), client.samplers(), client.schedulers()
        )
        settings = options.Settings(told)
        if modules is None and (request.unet or request.text_encoders):
            field = "unet" if request.unet else "text_encoders"
            raise self._cannot(field, "AUTOMATIC1111 loads whole checkpoints only; use Forge")
        chosen = self._checkpoint(checkpoints, settings)
        vae, encoders, used = await self._modules(modules, chosen)
        prompt, loras, tags = await self._loras()
        lists = sampling.Lists(self._alias, samplers, schedulers)
        sampler, scheduler = lists.resolve(request.sampler, request.scheduler)
        upscaler = ""
        if request.hires.enabled and request.mode is Mode.TXT2IMG:
            upscaler = await self._hires_upscaler()
        scripts, script = await self._scripts()
        extra = await self._extra_payload(checkpoints, lists)
        self._need_models()
        await self._check_styles()
        boot = await self._session.boot()
        detail: JSON = {
            "kind": "txt2img" if request.mode is Mode.TXT2IMG else "img2img",
            "flavour": AUTOMATIC1111 if modules is None else FORGE,
            "webui": bool(boot.id),
            "hash": chosen.digest,
            "model": names.stem(chosen.checkpoint.filename or chosen.checkpoint.name),
            "modules": used,
            "prompt": prompt,
            "tags": tags,
            "schedulers": lists.schedulers is not None,
            "alwayson_scripts": scripts,
            "script_name": script,
            "payload": extra,
            "settings": settings.to_json(),
        }
        resolution = Resolution(
            checkpoint="" if request.unet else chosen.checkpoint.title,
            unet=chosen.checkpoint.title if request.unet else "",
            text_encoders=encoders,
            vae=vae,
            loras=loras,
            sampler=sampler,
            scheduler=scheduler,
            upscaler=upscaler,
            detail=detail,
        )
        payload.check_section(self._alias, request, resolution)
        return resolution

    # Models.

    def _checkpoint(self, checkpoints: Sequence[Checkpoint], settings: options.Settings) -> _Chosen:
        request = self._request
        field = "unet" if request.unet else "checkpoint"
        wanted = request.unet or request.checkpoint
        if not checkpoints and not wanted:
            raise ModelMissing(self._alias, field, "any model")
        if wanted:
            try:
                found = names.find_checkpoint(wanted, checkpoints)
            except NoMatch as error:
                self._lacks(field, wanted, error)
                found = Checkpoint(title=wanted)
            return _Chosen(found, names.expected_hash(wanted, found))
        return self._selected(checkpoints, settings)

    def _selected(self, checkpoints: Sequence[Checkpoint], settings: options.Settings) -> _Chosen:
        """Take what the server has selected now, so that the picture can be made again."""
        own = settings.modules if not (self._request.vae or self._request.text_encoders) else None
        selected = settings.checkpoint
        if not selected and len(checkpoints) == 1:
            selected = checkpoints[0].title
        if not selected:
            why = (
                "it has none selected"
                if settings.readable
                else "its settings cannot be read (500: somebody stored a wrong value there), so"
                " the loaded model is unknown"
            )
            titles = [entry.title for entry in checkpoints[:10]]
            raise self._cannot("checkpoint", f"{why}; name a checkpoint", titles)
        try:
            found = names.find_checkpoint(selected, checkpoints)
        except NoMatch as error:
            raise ModelMissing(self._alias, "checkpoint", selected, error.suggestions) from None
        return _Chosen(found, names.expected_hash(selected, found), own)

    async def _modules(
        self, modules: Sequence[ModelFile] | None, chosen: _Chosen
    ) -> tuple[str, tuple[str, ...], list[str]]:
        """Return the VAE's name, the text encoders', and Forge's list of both."""
        request = self._request
        wants_vae = request.vae.strip().casefold() not in _NO_VAE
        if modules is None:
            return (await self._vae_file() if wants_vae else ""), (), []
        listed = [entry.model_name for entry in modules]
        if chosen.modules is not None:
            own = [self._model(name, listed, "checkpoint") for name in chosen.modules]
            return "", (), own
        encoders = tuple(
            self._model(name, listed, f"text_encoders.{place}")
            for place, name in enumerate(request.text_encoders)
        )
        vae = self._model(request.vae, listed, "vae") if wants_vae else ""
        return vae, encoders, [*encoders, *([vae] if vae else [])]

    async def _vae_file(self) -> str:
        files = await self._client.vaes()
        if files is None:
            raise self._cannot("vae", "it lists no VAEs; leave it empty")
        return self._model(self._request.vae, [file.model_name for file in files], "vae")

    async def _loras(self) -> tuple[str, tuple[LoraUse, ...], list[str]]:
        """Return the prompt with exact tags, the LoRAs to add, and all names that must be used."""
        request = self._request
        tagged = _TAG.search(request.prompt) is not None
        if not request.loras and not tagged:
            return request.prompt, (), []
        files = await self._client.loras()
        boot = await self._session.boot()
        if files is None:
            field = "loras" if request.loras else "prompt"
            raise self._session.lacks(boot, "loras", field, "it has no LoRA support")
        boot.found("loras")
        used: list[str] = []

        def exact(match: re.Match[str]) -> str:
            name = self._tag_name(match.group(1), files)
            used.append(name)
            return f"<lora:{name}{match.group(2)}>"

        prompt = _TAG.sub(exact, request.prompt)
        loras = tuple(self._lora(n, lora, files) for n, lora in enumerate(request.loras))
        return prompt, loras, used

    def _tag_name(self, name: str, files: Sequence[LoraFile]) -> str:
        if any(name == file.name for file in files):
            return name
        if sum(name == file.alias for file in files) == 1:
            return name
        return self._writable(self._find_lora("prompt", name, files), "prompt")

    def _lora(self, place: int, lora: Lora, files: Sequence[LoraFile]) -> LoraUse:
        field = f"loras.{place}.name"
        return LoraUse(
            name=self._writable(self._find_lora(field, lora.name, files), field),
            weight=lora.weight,
            text_weight=lora.weight if lora.text_weight is None else lora.text_weight,
        )

    def _find_lora(self, field: str, name: str, files: Sequence[LoraFile]) -> str:
        try:
            return names.find_lora(name.strip(), files).name
        except NoMatch as error:
            self._lacks(field, name, error)
            return ""

    def _writable(self, name: str, field: str) -> str:
        if _UNWRITABLE & set(name):
            raise self._cannot(
                field, f"the file name {name!r} cannot be written as a tag there; rename the file"
            )
        return name

    def _model(self, wanted: str, listed: Sequence[str], field: str) -> str:
        try:
            return names.find(wanted, listed, str)
        except NoMatch as error:
            self._lacks(field, wanted, error)
            return wanted

    def _lacks(self, field: str, name: str, error: NoMatch) -> None:
        self._missing.append(ModelMissing(self._alias, field, name, error.suggestions))

    def _need_models(self) -> None:
        """Refuse once everything was looked up, so that all that is missing is known at once."""
        if self._missing:
            raise ModelMissing.of(self._missing)

    # The rest.

    async def _hires_upscaler(self) -> str:
        wanted = self._request.hires.upscaler
        offered = [*await self._client.latent_modes(), *await self._client.upscalers()]
        return self._model(wanted, offered, "hires.upscaler")

    async def _scripts(self) -> tuple[JSON, str]:
        """Return the always-on scripts under the server's titles, and the script's title."""
        request, section = self._request, self._section
        script = section.script_name if section else ""
        if not request.alwayson_scripts and not script:
            return {}, ""
        scripts = await self._client.scripts()
        if scripts is None:
            return dict(request.alwayson_scripts), script
        own = scripts.txt2img if request.mode is Mode.TXT2IMG else scripts.img2img
        titles = [title for title in own if title]
        found: JSON = {}
        for title, arguments in request.alwayson_scripts.items():
            field = f"alwayson_scripts.{title}"
            if not isinstance(mapping(arguments).get("args", []), list) or not isinstance(
                arguments, dict
            ):
                raise self._cannot(field, "its settings must be an object like {args: [...]}")
            found[self._title(title, titles, field)] = arguments
        name = self._title(script, titles, "sections.forge.script_name") if script else ""
        return found, name

    def _title(self, wanted: str, titles: Sequence[str], field: str) -> str:
        try:
            return names.find_title(wanted, titles)
        except NoMatch as error:
            raise self._cannot(
                field, "it has no such script", error.suggestions or titles
            ) from None

    async def _check_styles(self) -> None:
        if not self._section or not self._section.styles:
            return
        listed = await self._client.styles()
        for place, style in enumerate(self._section.styles):
            if style not in listed:
                field = f"sections.forge.styles.{place}"
                alike = names.suggest(style, listed) or listed[:10]
                raise self._cannot(field, f"it has no style {style!r}", alike)

    async def _extra_payload(
        self, checkpoints: Sequence[Checkpoint], lists: sampling.Lists
    ) -> dict[str, Any]:
        """Return the section's own fields, with the names in them made exact."""
        found: dict[str, Any] = dict(self._section.payload) if self._section else {}
        for key in ("refiner_checkpoint", "hr_checkpoint_name"):
            wanted = text(found.get(key))
            if wanted and wanted not in {"None", "Use same checkpoint"}:
                field = f"sections.forge.payload.{key}"
                try:
                    found[key] = names.find_checkpoint(wanted, checkpoints).title
                except NoMatch as error:
                    self._lacks(field, wanted, error)
        if (wanted := text(found.get("hr_sampler_name"))) and wanted != "Use same sampler":
            found["hr_sampler_name"] = lists.sampler(wanted)
        if (wanted := text(found.get("hr_scheduler"))) and wanted != "Use same scheduler":
            found["hr_scheduler"] = lists.scheduler(wanted)
        return found

    def _cannot(self, field: str, problem: str, allowed: Sequence[str] = ()) -> EngineError:
        return Unsupported(self._alias, field, problem, allowed)
