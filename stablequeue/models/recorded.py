"""What the library's record knows, for whoever only looks: no scan, no hashing, nothing made."""

from stablequeue.models.library import FILE_NAME, Library
from stablequeue.models.records import ModelFile
from stablequeue.settings import Settings


def recorded(settings: Settings) -> list[ModelFile]:
    """Return the files the record has; none where models were never scanned.

    Raises:
        CatalogueError: It is damaged, or of a newer release.
    """
    if not (settings.home / FILE_NAME).is_file():
        return []
    library = Library(settings.home)
    try:
        return library.files()
    finally:
        library.close()
