"""Finding ComfyUI's own name for what a request names; the rules stand in `model_names`.

Model names are relative paths with the *server's* separator, and a name counts only as the exact
string of its list (scenario 19).
"""

from collections.abc import Sequence

from stablequeue import model_names as names
from stablequeue.model_names import NoMatch

__all__ = ["NoMatch", "find", "is_model_file", "suggest"]


def find(wanted: str, available: Sequence[str]) -> str:
    """Return the entry of `available` that `wanted` names.

    Only when it names none is a trailing ` [hash]`, as Forge's titles have, left out and the
    search repeated.

    Raises:
        NoMatch: Nothing fits, or several entries do.
    """
    for candidate in dict.fromkeys((wanted, names.TITLE_HASH.sub("", wanted))):
        if (found := names.search(candidate, available, str)) is not None:
            return found
    raise NoMatch(suggest(wanted, available))


def suggest(wanted: str, available: Sequence[str]) -> tuple[str, ...]:
    """Return names that look like `wanted`, the most alike first."""
    return names.suggest(names.TITLE_HASH.sub("", wanted), available)


def is_model_file(name: str) -> bool:
    """Whether a name looks like a model file's."""
    return name.casefold().endswith(names.SUFFIXES)
