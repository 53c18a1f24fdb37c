"""Finding the server's own name for what a request names. Never a guess.

Model names are relative paths with the *server's* separator, and a name counts only as the exact
string of its list (scenario 19). File names may hold brackets, spaces, parentheses and any letter.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence

MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".sft", ".gguf", ".pkl")
_HASH = re.compile(r" \[[0-9a-fA-F]{6,64}\]$")
_MOST_SUGGESTIONS = 5


class NoMatch(LookupError):
    """The list has no such name, or more than one that could be meant.

    Args:
        suggestions: Names of the list that look alike, or all that could be meant.
    """

    def __init__(self, suggestions: Sequence[str]) -> None:
        super().__init__(tuple(suggestions))
        self.suggestions = tuple(suggestions)


def find(wanted: str, available: Sequence[str]) -> str:
    """Return the entry of `available` that `wanted` names.

    The first rule that fits exactly one entry decides: the literal string; the same path (either
    slash); the same path but for the suffix; the same base name; the same base name but for the
    suffix. Each is tried as written and then without regard to case. Only when all of them fail is
    a trailing ` [hash]`, as Forge's titles have, left out and the search repeated.

    Raises:
        NoMatch: Nothing fits, or several entries do.
    """
    if wanted in available:
        return wanted
    for candidate in dict.fromkeys((wanted, _HASH.sub("", wanted))):
        if not candidate.strip():
            continue
        if found := _search(candidate, available):
            return found
    raise NoMatch(suggest(wanted, available))


def suggest(wanted: str, available: Sequence[str]) -> tuple[str, ...]:
    """Return names that look like `wanted`, the most alike first."""
    by_key: dict[str, str] = {}
    for name in available:
        by_key.setdefault(_path(name).casefold(), name)
        by_key.setdefault(_stem(_base(_path(name))).casefold(), name)
    key = _path(_HASH.sub("", wanted)).casefold()
    alike = difflib.get_close_matches(key, by_key, n=_MOST_SUGGESTIONS, cutoff=0.6)
    alike += difflib.get_close_matches(_stem(_base(key)), by_key, n=_MOST_SUGGESTIONS, cutoff=0.6)
    return tuple(dict.fromkeys(by_key[key] for key in alike))[:_MOST_SUGGESTIONS]


def is_model_file(name: str) -> bool:
    """Whether a name looks like a model file's."""
    return name.casefold().endswith(MODEL_SUFFIXES)


def _search(wanted: str, available: Sequence[str]) -> str:
    for part in (_as_it_is, _base):
        for same in (_same_name, _same_but_for_suffix):
            for case in (_as_it_is, str.casefold):
                key = case(part(_path(wanted)))
                fitting = [name for name in available if same(key, case(part(_path(name))))]
                if len(fitting) == 1:
                    return fitting[0]
                if len(fitting) > 1:
                    raise NoMatch(fitting[:_MOST_SUGGESTIONS])
    return ""


def _same_name(wanted: str, name: str) -> bool:
    return wanted == name


def _same_but_for_suffix(wanted: str, name: str) -> bool:
    # `a.ckpt` is not `a.safetensors`: only one of the two may lack a suffix.
    return wanted == _stem(name) or _stem(wanted) == name


def _path(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).strip("/")


def _as_it_is(path: str) -> str:
    return path


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    for suffix in MODEL_SUFFIXES:
        if path.casefold().endswith(suffix):
            return path[: -len(suffix)]
    return path
