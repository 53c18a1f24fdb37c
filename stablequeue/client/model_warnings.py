"""Warnings about models that do not fit together, for the answer to a submit.

Only the record is asked, nothing on the disk; what it does not know is passed over. Without a
record this costs one look for its file.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from stablequeue.errors import BadRequest, CatalogueError
from stablequeue.model_names import model_key
from stablequeue.models.compatibility import warnings_for
from stablequeue.models.kinds import ModelType
from stablequeue.models.recorded import recorded
from stablequeue.models.records import ModelFile
from stablequeue.models.references import Name, Tag, parse_reference
from stablequeue.models.resolving import resolve
from stablequeue.prompts.comfy_graph import summarise
from stablequeue.prompts.lora_tags import lift_tags
from stablequeue.request import GenerationRequest
from stablequeue.settings import Settings

_WORD = re.compile(r"[\w.\-]+")


class ModelWarnings:
    """Warnings about requests; the record is read once for all of them.

    Args:
        settings: Of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def about(self, request: GenerationRequest) -> list[str]:
        """Return one sentence for each thing that will not work as meant."""
        checkpoint, others = _named(request)
        if not checkpoint or not self._files:
            return []
        image = self._found(checkpoint, ModelType.CHECKPOINT)
        if image is None:
            return []
        found = [self._found(name, kind) for name, kind in others]
        used = [one.described for one in (*found, *self._embeddings(request)) if one is not None]
        return list(
            warnings_for(
                image.described,
                used,
                prompt=request.prompt,
                negative_prompt=request.negative_prompt,
                cfg_scale=request.cfg_scale,
            )
        )

    @cached_property
    def _files(self) -> list[ModelFile]:
        try:
            return recorded(self._settings)
        except CatalogueError:
            return []  # whoever asks for models is told what is wrong with it

    @cached_property
    def _by_key(self) -> dict[str, list[ModelFile]]:
        found: dict[str, list[ModelFile]] = defaultdict(list)
        for one in self._files:
            for key in {model_key(one.name), one.alias.casefold()}:
                found[key].append(one)
        return found

    def _found(self, name: str, kind: ModelType) -> ModelFile | None:
        try:
            reference = parse_reference(name)
        except BadRequest:
            return None
        files: Sequence[ModelFile] = self._files
        if isinstance(reference, Name | Tag):
            files = self._by_key.get(model_key(name), ())
        return resolve(reference, files, kind=kind).file

    def _embeddings(self, request: GenerationRequest) -> list[ModelFile]:
        words = set(_WORD.findall(f"{request.prompt} {request.negative_prompt}".casefold()))
        return [
            one
            for word in words
            for one in self._by_key.get(word, ())
            if one.kind is ModelType.EMBEDDING
        ]


def _named(request: GenerationRequest) -> tuple[str, list[tuple[str, ModelType]]]:
    """Return the image model a request names, and the others, each with its type."""
    if request.workflow:
        told = summarise(request.workflow)
        loras = [lora.name for lora in told.loras]
        checkpoint, vae = (told.models[0] if told.models else ""), told.vae
    else:
        tags = lift_tags(request.prompt)[1] if "<" in request.prompt else []
        loras = [lora.name for lora in (*request.loras, *tags)]
        checkpoint, vae = request.checkpoint or request.unet, request.vae
    others = [(name, ModelType.LORA) for name in loras]
    return checkpoint, [*others, (vae, ModelType.VAE)] if vae else others
