"""The library's folders as this installation's settings name them."""

from collections.abc import Mapping

from stablequeue.models.folders import Root, gather_roots
from stablequeue.models.kinds import type_of
from stablequeue.settings import ModelSettings


def library_roots(
    settings: ModelSettings, environment: Mapping[str, str] | None = None
) -> list[Root]:
    """Return all folders of models, in the order new files are put into them.

    Args:
        settings: Of this installation.
        environment: None: that of the process.

    Raises:
        SettingsError: A file that lists folders cannot be read.
    """
    explicit = {
        kind: folders
        for word, folders in settings.folders.items()
        if (kind := type_of(word)) is not None  # the settings refuse others
    }
    return gather_roots(
        explicit=explicit,
        installations=settings.installations,
        extra_files=settings.extra_model_paths,
        environment=environment,
    )
