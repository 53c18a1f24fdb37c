"""The library's folders as this installation's settings name them."""

from collections.abc import Mapping

from stablequeue.errors import SettingsError
from stablequeue.models.folders import Root, gather_roots
from stablequeue.models.kinds import ModelType
from stablequeue.settings import ModelSettings

_WORDS = {"unet": ModelType.DIFFUSION_MODEL}


def kind_named(word: str) -> ModelType | None:
    """Return the type that the settings or a source name with a word; None: none of ours."""
    key = word.strip().casefold()
    if key in _WORDS:
        return _WORDS[key]
    return ModelType(key) if key in set(ModelType) else None


def library_roots(
    settings: ModelSettings, environment: Mapping[str, str] | None = None
) -> list[Root]:
    """Return all folders of models, in the order new files are put into them.

    Args:
        settings: Of this installation.
        environment: None: that of the process.

    Raises:
        SettingsError: A type is none of ours, or a file that lists folders cannot be read.
    """
    explicit = {_kind(word): folders for word, folders in settings.folders.items()}
    return gather_roots(
        explicit=explicit,
        installations=settings.installations,
        extra_files=settings.extra_model_paths,
        environment=environment,
    )


def _kind(word: str) -> ModelType:
    kind = kind_named(word)
    if kind is None:
        known = ", ".join(sorted({*ModelType, *_WORDS}))
        message = f"setting models.folders: {word[:50]!r} is no type of model; known are {known}"
        raise SettingsError(message)
    return kind
