"""Finding the server's own name for what a request names. Never a guess.

Servers know names only as the exact strings of their lists, with their own separator. File names
may hold brackets, parentheses, spaces and any letter; a Windows server separates folders with
backslashes. What is peculiar to one kind of server stands in the engine's own `names`.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".sft", ".gguf", ".pkl")
"""Of model files, in lower case."""

MOST_SUGGESTIONS = 5
_COMPARED = 300
"""Characters of a name that are compared for suggestions; it takes the square of their number."""

TITLE_HASH = re.compile(r" \[([0-9a-fA-F]{8,64})\]$")
"""What A1111 and Forge put behind a name: the beginning of the file's SHA-256, 8 or 10 digits."""

T = TypeVar("T")


class NoMatch(LookupError):
    """The list has no such name, or more than one that could be meant.

    Args:
        suggestions: Names of the list that look alike, or all that could be meant.
    """

    def __init__(self, suggestions: Sequence[str]) -> None:
        super().__init__(tuple(suggestions))
        self.suggestions = tuple(suggestions)


def find(wanted: str, entries: Iterable[T], name_of: Callable[[T], str]) -> T:
    """Return the entry that `wanted` names; the rules are those of `search`.

    Raises:
        NoMatch: Nothing fits, or several do.
    """
    listed = list(entries)
    found = search(wanted, listed, name_of)
    if found is None:
        raise NoMatch(suggest(wanted, [name_of(entry) for entry in listed]))
    return found


def search(wanted: str, entries: Iterable[T], name_of: Callable[[T], str]) -> T | None:
    """Return the entry that `wanted` names; None if there is none.

    The first rule that fits exactly one entry decides: the literal name; the same path (either
    slash); the same path but for the suffix; the same base name; the same base name but for the
    suffix. Each is tried as written and then without regard to case.

    Raises:
        NoMatch: Several entries could be meant.
    """
    named = [(name_of(entry), entry) for entry in entries]
    literal = [entry for name, entry in named if name == wanted]
    if literal and all(entry == literal[0] for entry in literal):
        return literal[0]
    if not wanted.strip():
        return None
    for part in (str, base):
        for same in (_same, _same_but_for_suffix):
            for case in (str, str.casefold):
                key = case(part(path(wanted)))
                fitting = [(n, e) for n, e in named if same(key, case(part(path(n))))]
                if len(fitting) == 1:
                    return fitting[0][1]
                if fitting:
                    raise NoMatch([name for name, _ in fitting[:MOST_SUGGESTIONS]])
    return None


def suggest(wanted: str, available: Iterable[str]) -> tuple[str, ...]:
    """Return names that look like `wanted`, the most alike first."""
    if not wanted.strip():
        return ()
    by_key: dict[str, str] = {}
    for name in available:
        by_key.setdefault(path(name).casefold(), name)
        by_key.setdefault(stem(name).casefold(), name)
    alike: list[str] = []
    for key in (path(wanted).casefold(), stem(wanted).casefold()):
        alike += difflib.get_close_matches(key[:_COMPARED], by_key, n=MOST_SUGGESTIONS, cutoff=0.6)
    return tuple(dict.fromkeys(by_key[key] for key in alike))[:MOST_SUGGESTIONS]


def path(name: str) -> str:
    """Return a name with forward slashes and composed letters."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).strip("/")


def base(name: str) -> str:
    """Return the last part of a path with forward slashes."""
    return name.rpartition("/")[2]


def stem(name: str) -> str:
    """Return the base name without its suffix, as infotexts tell it."""
    return without_suffix(base(path(name)))


def model_key(name: str) -> str:
    """Return what all spellings of one model have in common: no folder, suffix, hash or case.

    Forge lists `folder/name.safetensors [hash]` and reports `name`. A file's own name may end like
    a hash: only what stands behind a suffix is one.
    """
    bare = TITLE_HASH.sub("", name)
    return stem(name if without_suffix(bare) == bare else bare).casefold()


def without_suffix(name: str) -> str:
    """Return a name without the suffix of a model file, if it has one."""
    for suffix in SUFFIXES:
        if name.casefold().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _same(wanted: str, name: str) -> bool:
    return wanted == name


def _same_but_for_suffix(wanted: str, name: str) -> bool:
    # `a.ckpt` is not `a.safetensors`: only one of the two may lack a suffix.
    return wanted == without_suffix(name) or without_suffix(wanted) == name
