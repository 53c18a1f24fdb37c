"""Keys: readable, dated names of stored files, the same and safe on every system.

`2026-11-21/143502-a-cat-on-a-roof-s7-1a2b3c4d-0.png` says when, what, which seed, which job and
which picture of it. Only lower case ASCII letters, digits, `-`, `_` and `.` occur, so a key is a
valid path on Linux, macOS and Windows, a plain S3 key, and never needs quoting in a URL.
"""

import re
import unicodedata
from datetime import datetime
from pathlib import PurePosixPath

from stablequeue.errors import UnsafeName
from stablequeue.ids import short_id

LONGEST_KEY = 200
"""Characters: leaves room for the folder within Windows' 260."""

_WORDS_LENGTH = 48
_READ_OF_PROMPT = 2000
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_TAG = re.compile(r"<[^<>]{0,300}>")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)
# Windows opens a device for these, whatever follows the first dot.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in range(10)]
)


def readable_key(
    created: datetime,
    prompt: str,
    *,
    seed: int,
    job_id: str,
    index: int,
    ordinal: int,
    suffix: str,
) -> str:
    """Return the key of one file.

    The same arguments always give the same key, so storing again after a crash finds what is
    there already.

    Args:
        created: When it was made; written in the time zone it carries.
        prompt: Anything; its first words are shown when they can be written in ASCII.
        seed: The picture's own seed.
        job_id: The job's UUID; its short form is shown.
        index: Which picture of the job, from 0.
        ordinal: Which file of that picture, from 0; shown from the second on.
        suffix: With its dot, e.g. `.png`; anything unusual becomes `.bin`.
    """
    words = slug(prompt)
    ident = _NOT_WORD.sub("", short_id(job_id).casefold()) or "job"
    parts = [
        f"{created:%H%M%S}",
        *([words] if words else []),
        f"s{max(seed, 0)}",
        ident,
        f"{max(index, 0)}",
        *([f"{ordinal}"] if ordinal > 0 else []),
    ]
    ending = suffix.casefold()
    if not _SUFFIX.fullmatch(ending):
        ending = ".bin"
    # %Y is not zero-padded everywhere
    day = f"{created.year:04d}-{created.month:02d}-{created.day:02d}"
    return f"{day}/{'-'.join(parts)}{ending}"


def slug(text: str, *, longest: int = _WORDS_LENGTH) -> str:
    """Return the first words of `text` in lower case ASCII, joined by hyphens; may be empty.

    Tags such as `<lora:name:1>` are left out, accents are dropped, and whatever cannot be written
    in ASCII (other scripts) is left out.
    """
    plain = _TAG.sub(" ", text[:_READ_OF_PROMPT])
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode("ascii")
    joined = _NOT_WORD.sub("-", ascii_only.casefold()).strip("-")
    if len(joined) <= longest:
        return joined
    cut = joined[: longest + 1].rpartition("-")[0]
    return (cut or joined[:longest]).strip("-")


def numbered(key: str, limit: int) -> list[str]:
    """Return `key`, then `name-2.png`, `name-3.png` and so on: `limit` keys."""
    path = PurePosixPath(key)
    return [key, *(str(path.with_stem(f"{path.stem}-{n}")) for n in range(2, limit + 1))]


def check_key(store: str, key: str) -> tuple[str, ...]:
    """Return the parts of a key.

    Raises:
        UnsafeName: It is no key of ours: absolute, with `..`, too long, or with characters or
            names that some system treats specially.
    """
    shown = ascii(key[:80])
    if len(key) > LONGEST_KEY:
        raise UnsafeName(store, f"the name {shown}... is longer than {LONGEST_KEY} characters")
    parts = tuple(key.split("/"))
    for part in parts:
        if not _PART.fullmatch(part) or part.endswith("."):
            raise UnsafeName(
                store, f"the name {shown} is not letters, digits, '-', '_' and '.' in folders"
            )
        if part.partition(".")[0].casefold() in _RESERVED:
            raise UnsafeName(store, f"the name {shown} has a special meaning on Windows")
    return parts
