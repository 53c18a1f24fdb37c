"""File names that come from outside, made safe for every system."""

import re
import unicodedata
from urllib.parse import unquote, urlsplit

from stablequeue.model_names import SUFFIXES

LONGEST = 180
"""Bytes in UTF-8: leaves room, within the 255 of most file systems, for what is put behind."""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*/\\]+')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d)(\..*)?")


def safe_name(name: str, *, fallback: str = "model.safetensors") -> str:
    """Return the last part of a hostile name as a plain file name.

    Letters of every script stay; separators, control characters and what Windows forbids become
    `_`; dots and spaces at the ends go; a name too long loses its middle, never its suffix.
    """
    text = unicodedata.normalize("NFC", name.replace("\\", "/"))
    text = "".join("_" if unicodedata.category(c) in {"Cc", "Cf", "Cs"} else c for c in text)
    text = _FORBIDDEN.sub("_", text.rpartition("/")[2]).strip(". ")
    if not text.strip("._ "):
        return fallback
    if _RESERVED.fullmatch(text):
        text = f"_{text}"
    return _shortened(text)


def name_of_url(url: str) -> str:
    """Return the last part of a URL's path, decoded and made safe; empty if there is none."""
    last = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return safe_name(last, fallback="")


def has_model_suffix(name: str) -> bool:
    """Whether a name ends as model files do."""
    return name.casefold().endswith(SUFFIXES)


def _shortened(text: str) -> str:
    if len(text.encode()) <= LONGEST:
        return text
    stem, dot, suffix = text.rpartition(".")
    if not stem or len(suffix.encode()) > 16:  # noqa: PLR2004 - no suffix of a file is longer
        stem, dot, suffix = text, "", ""
    kept = stem.encode()[: LONGEST - len(dot) - len(suffix.encode())].decode(errors="ignore")
    return kept.rstrip(". ") + dot + suffix
