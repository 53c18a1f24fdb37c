"""Finding the server's own name for what a request names. Never a guess.

The server replaces a name it does not know by the loaded model without a word, and knows names
only as exact strings (recordings `override_ckpt_*`). So we search its lists ourselves and send one
of its own strings back. File names may hold brackets, parentheses, spaces and any letter; a
Windows server separates folders with backslashes.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from stablequeue.engines.forge.answers import Checkpoint, LoraFile

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft", ".gguf")
_TITLE_HASH = re.compile(r" \[([0-9a-fA-F]{8,64})\]$")
_BARE_HASH = re.compile(r"[0-9a-fA-F]{10,64}")
_MOST_SUGGESTIONS = 5

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
    """Return the entry that `wanted` names.

    The first rule that fits exactly one entry decides: the literal name; the same path (either
    slash); the same path but for the suffix; the same base name; the same base name but for the
    suffix. Each is tried as written and then without regard to case.

    Raises:
        NoMatch: Nothing fits, or several entries do.
    """
    named = [(name_of(entry), entry) for entry in entries]
    literal = [entry for name, entry in named if name == wanted]
    if len(literal) == 1:
        return literal[0]
    if not wanted.strip():
        raise NoMatch(())
    for part in (str, base):
        for same in (_same, _same_but_for_suffix):
            for case in (str, str.casefold):
                key = case(part(path(wanted)))
                fitting = [(n, e) for n, e in named if same(key, case(part(path(n))))]
                if len(fitting) == 1:
                    return fitting[0][1]
                if fitting:
                    raise NoMatch([name for name, _ in fitting[:_MOST_SUGGESTIONS]])
    raise NoMatch(suggest(wanted, [name for name, _ in named]))


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
        told = _TITLE_HASH.search(wanted)
        digest = told.group(1) if told else wanted if _BARE_HASH.fullmatch(wanted) else ""
        if not digest:
            raise NoMatch(_titles(error, checkpoints)) from None
    by_hash = [entry for entry in checkpoints if _has_hash(entry, digest)]
    if len(by_hash) == 1:
        return by_hash[0]
    if by_hash:
        raise NoMatch([entry.title for entry in by_hash[:_MOST_SUGGESTIONS]])
    unhashed = [entry for entry in checkpoints if not (entry.hash or entry.sha256)]
    name = _TITLE_HASH.sub("", wanted)
    try:
        return find(name, unhashed, lambda entry: entry.name)
    except NoMatch:
        everything = [entry.name for entry in checkpoints]
        raise NoMatch(_titles(NoMatch(suggest(name, everything)), checkpoints)) from None


def expected_hash(wanted: str, found: Checkpoint) -> str:
    """Return the hash the picture must report, 10 digits; empty while nobody knows it."""
    told = _TITLE_HASH.search(wanted)
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
    known = [name for lora in loras for name in (lora.name, lora.alias) if name]
    raise NoMatch([lora.name for lora in tail[:_MOST_SUGGESTIONS]] or suggest(wanted, known))


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


def suggest(wanted: str, available: Iterable[str]) -> tuple[str, ...]:
    """Return names that look like `wanted`, the most alike first."""
    by_key: dict[str, str] = {}
    for name in available:
        by_key.setdefault(path(name).casefold(), name)
        by_key.setdefault(stem(name).casefold(), name)
    alike: list[str] = []
    for key in (path(wanted).casefold(), stem(wanted).casefold()):
        alike += difflib.get_close_matches(key[:300], by_key, n=_MOST_SUGGESTIONS, cutoff=0.6)
    return tuple(dict.fromkeys(by_key[key] for key in alike))[:_MOST_SUGGESTIONS]


def path(name: str) -> str:
    """Return a name with forward slashes and composed letters."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).strip("/")


def base(name: str) -> str:
    """Return the last part of a path with forward slashes."""
    return name.rpartition("/")[2]


def stem(name: str) -> str:
    """Return the base name without its suffix, as infotexts tell it."""
    return _without_suffix(base(path(name)))


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES:
        if name.casefold().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _same(wanted: str, name: str) -> bool:
    return wanted == name


def _same_but_for_suffix(wanted: str, name: str) -> bool:
    # `a.ckpt` is not `a.safetensors`: only one of the two may lack a suffix.
    return wanted == _without_suffix(name) or _without_suffix(wanted) == name


def _is_tail(wanted: str, whole: str) -> bool:
    """Whether `sub/name` is the end of an absolute path, with or without the suffix."""
    key, full = path(wanted).casefold(), path(whole).casefold()
    return any(f"/{candidate}".endswith(f"/{key}") for candidate in (full, _without_suffix(full)))


def _has_hash(entry: Checkpoint, digest: str) -> bool:
    key = digest.casefold()
    known = [known.casefold() for known in (entry.sha256, entry.hash) if known]
    return any(one.startswith(key) or key.startswith(one) for one in known)


def _titles(error: NoMatch, checkpoints: Sequence[Checkpoint]) -> list[str]:
    titles = {entry.name: entry.title for entry in checkpoints}
    return [titles.get(name, name) for name in error.suggestions]
