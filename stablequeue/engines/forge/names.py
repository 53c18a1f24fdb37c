"""Finding Forge's own name for what a request names; the rules stand in `model_names`.

The server replaces a name it does not know by the loaded model without a word, and knows names
only as exact strings (recordings `override_ckpt_*`). So we search its lists ourselves and send one
of its own strings back.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from stablequeue.engines.forge.answers import Checkpoint, LoraFile
from stablequeue.model_names import (
    MOST_SUGGESTIONS,
    TITLE_HASH,
    NoMatch,
    base,
    find,
    path,
    stem,
    suggest,
    without_suffix,
)

__all__ = [
    "NoMatch",
    "base",
    "expected_hash",
    "find",
    "find_checkpoint",
    "find_lora",
    "find_title",
    "path",
    "stem",
    "suggest",
]

_BARE_HASH = re.compile(r"[0-9a-fA-F]{10,64}")


def find_checkpoint(wanted: str, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Return the checkpoint that a title, path, base name or hash names.

    A hash behind the name decides where the server knows the file's hash: the right name with a
    wrong hash is another file, and no match. An old title without hash still names its file.

    Raises:
        NoMatch: Nothing fits, or several do.
    """
    for checkpoint in checkpoints:
        if wanted == checkpoint.title:
            return checkpoint
    try:
        return find(wanted, checkpoints, lambda entry: entry.name)
    except NoMatch as error:
        told = TITLE_HASH.search(wanted)
        digest = told.group(1) if told else wanted if _BARE_HASH.fullmatch(wanted) else ""
        if not digest:
            raise NoMatch(_titles(error, checkpoints)) from None
    by_hash = [entry for entry in checkpoints if _has_hash(entry, digest)]
    if len(by_hash) == 1:
        return by_hash[0]
    name = TITLE_HASH.sub("", wanted)
    unhashed = [entry for entry in checkpoints if not (entry.hash or entry.sha256)]
    try:  # copies of one file have one hash: the name says which
        return find(name, by_hash or unhashed, lambda entry: entry.name)
    except NoMatch:
        alike = suggest(name, [entry.name for entry in checkpoints])
        titles = [entry.title for entry in by_hash[:MOST_SUGGESTIONS]]
        raise NoMatch(titles or _titles(NoMatch(alike), checkpoints)) from None


def expected_hash(wanted: str, found: Checkpoint) -> str:
    """Return the hash the picture must report, 10 digits; empty while nobody knows it."""
    told = TITLE_HASH.search(wanted)
    return (found.hash or found.sha256 or (told.group(1) if told else ""))[:10].casefold()


def find_lora(wanted: str, loras: Sequence[LoraFile]) -> LoraFile:
    """Return the LoRA that a name, alias, path or base name names.

    Raises:
        NoMatch: Nothing fits, or several do.
    """
    ways: tuple[Callable[[LoraFile], str], ...] = (
        lambda lora: lora.name,
        lambda lora: lora.alias,
        lambda lora: lora.path,
    )
    for name_of in ways:
        try:
            return find(wanted, [lora for lora in loras if name_of(lora)], name_of)
        except NoMatch:
            continue
    tail = [lora for lora in loras if _is_tail(wanted, lora.path)]
    if len(tail) == 1:
        return tail[0]
    key = wanted.casefold()
    shared = tail or [lora for lora in loras if key == lora.alias.casefold() != ""]
    known = [name for lora in loras for name in (lora.name, lora.alias) if name]
    raise NoMatch([lora.name for lora in shared[:MOST_SUGGESTIONS]] or suggest(wanted, known))


def find_title(wanted: str, titles: Iterable[str]) -> str:
    """Return the title equal but for case and outer spaces.

    Raises:
        NoMatch: There is none, or several.
    """
    listed = list(titles)
    if wanted in listed:
        return wanted
    key = wanted.strip().casefold()
    fitting = [title for title in listed if title.strip().casefold() == key]
    if len(fitting) == 1:
        return fitting[0]
    raise NoMatch(fitting or suggest(wanted, listed))


def _is_tail(wanted: str, whole: str) -> bool:
    """Whether `sub/name` is the end of an absolute path, with or without the suffix."""
    key, full = path(wanted).casefold(), path(whole).casefold()
    return any(f"/{candidate}".endswith(f"/{key}") for candidate in (full, without_suffix(full)))


def _has_hash(entry: Checkpoint, digest: str) -> bool:
    key = digest.casefold()
    known = [known.casefold() for known in (entry.sha256, entry.hash) if known]
    return any(one.startswith(key) or key.startswith(one) for one in known)


def _titles(error: NoMatch, checkpoints: Sequence[Checkpoint]) -> list[str]:
    titles = {entry.name: entry.title for entry in checkpoints}
    return [titles.get(name, name) for name in error.suggestions]
