"""Carrying one offered file into a folder: whole and verified, or not at all."""

from stablequeue.models.downloads.downloader import download
from stablequeue.models.downloads.finishing import Downloaded
from stablequeue.models.downloads.leftovers import give_up, sweep
from stablequeue.models.downloads.limits import Limits
from stablequeue.models.downloads.progress import Progress

__all__ = ["Downloaded", "Limits", "Progress", "download", "give_up", "sweep"]
