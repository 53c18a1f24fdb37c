"""Which file of the library a reference means. Pure; nothing is ever guessed.

The first step that fits exactly one model decides:

1. a hash: SHA-256 and its beginnings, BLAKE3, hash without header (computed, then as the file
   claims), AutoV1, CRC-32; a version or model of Civitai by the ids that sidecars tell;
2. the name: literal, the same path with either slash, without suffix, base name, each as written
   and then without regard to case (`stablequeue.model_names`);
3. the alias a LoRA was trained under.

Several files with the same bytes are one model. What several models fit, and what only looks
alike, is listed as suggestions. A short hash may meet by chance: where the reference has a name
too and only the hash fits, that is said in the steps.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stablequeue.model_names import MOST_SUGGESTIONS, NoMatch, search, stem, suggest
from stablequeue.models.kinds import ModelType
from stablequeue.models.records import ModelFile
from stablequeue.models.references import (
    CivitaiImage,
    CivitaiModel,
    CivitaiVersion,
    DirectUrl,
    Hash,
    HashKind,
    HuggingFaceFile,
    Name,
    Number,
    Reference,
    Tag,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The answer, with its reasons.

    Attributes:
        file: What is meant; None: nothing, or not certain.
        how: The rule that decided, e.g. `autov2`, `name`; "" without a file.
        same: Further files with the same bytes.
        suggestions: Names that could be meant, or look alike; never used silently.
        steps: What was tried and found, one sentence each, for `--explain`.
    """

    file: ModelFile | None = None
    how: str = ""
    same: tuple[ModelFile, ...] = ()
    suggestions: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


def resolve(
    reference: Reference, files: Iterable[ModelFile], *, kind: ModelType | None = None
) -> Resolved:
    """Find what a reference means.

    Args:
        reference: As `parse_reference` returned it.
        files: Of the library; those with a problem are told about and never chosen.
        kind: Only models of this type; None: what the reference itself says, or any.
    """
    wanted = kind or _kind(reference)
    listed = [one for one in files if one.serves(wanted)]
    search_ = _Search([one for one in listed if not one.problem], listed)
    what = f"{wanted} models" if wanted else "models"
    search_.say(f"{len(listed)} {what} are in the library.")
    match reference:
        case Name(name=name, digits=digits):
            search_.named(name, digits)
        case Tag(name=name):
            search_.named(name, "")
        case Hash(digits=digits, kinds=kinds, text=text):
            if not search_.hashed(digits, kinds):
                search_.named(text, "")
        case CivitaiVersion() | CivitaiModel() | Number():
            search_.on_civitai(reference)
        case HuggingFaceFile(path=path):
            search_.elsewhere(path)
        case DirectUrl(url=url):
            search_.elsewhere(url.partition("?")[0].rpartition("/")[2])
        case CivitaiImage():
            search_.say("A picture names several models; ask Civitai for them first.")
    return search_.answer()


def matching(digits: str, kind: HashKind, files: Iterable[ModelFile]) -> list[ModelFile]:
    """Return the files that a hash of one kind fits; a short one may be the beginning."""
    return [one for one in files if any(_fits(digits, whole) for whole in _hashes(one, kind))]


def is_fake_hash(digits: str, name: str) -> bool:
    """Say whether a hash is of a file's name instead of its bytes.

    Forge wrote such from August to October 2024; they identify nothing but the name.
    """
    names = {name, *(stem(name) + suffix for suffix in (".safetensors", ".ckpt", ""))}
    return len(digits) >= 8 and any(  # noqa: PLR2004
        hashlib.sha256(one.encode()).hexdigest().startswith(digits.lower()) for one in names
    )


class _Search:
    """One search: what was found, and how."""

    def __init__(self, usable: list[ModelFile], listed: list[ModelFile]) -> None:
        self._usable = usable
        self._broken = [one for one in listed if one.problem]
        self._found: list[ModelFile] = []
        self._how = ""
        self._suggestions: tuple[str, ...] = ()
        self._steps: list[str] = []

    def say(self, step: str) -> None:
        self._steps.append(step)

    def answer(self) -> Resolved:
        file, *same = self._found or [None]
        return Resolved(
            file=file,
            how=self._how if file else "",
            same=tuple(one for one in same if one is not None),
            suggestions=() if file else self._suggestions,
            steps=tuple(self._steps),
        )

    def hashed(self, digits: str, kinds: Sequence[HashKind]) -> bool:
        """Look for a hash; return whether the search is over."""
        for kind in kinds:
            if self._take(matching(digits, kind, self._usable), kind.value, f"{kind} {digits}"):
                return True
        if self._of_embedded(digits):
            return True
        unhashed = sum(1 for one in self._usable if not one.sha256)
        if unhashed:
            self.say(f"{unhashed} files are not hashed yet; run: stablequeue models scan")
        return False

    def named(self, name: str, digits: str) -> None:
        if digits and is_fake_hash(digits, name):
            self.say(f"{digits} is a hash of the file's name, which Forge wrote in 2024; ignored.")
            digits = ""
        if digits and self._by_title(name, digits):
            return
        if self._by(name, "name", lambda one: one.name):
            return
        if self._by(name, "path", lambda one: str(one.path)):
            return
        self._by(name, "alias", lambda one: one.alias)
        if not self._found and not self._suggestions:
            self._suggestions = suggest(name, [one.name for one in self._usable])
            if self._suggestions:
                self.say("Names that look alike are suggested and not used.")
        self._tell_broken(name)

    def on_civitai(self, reference: CivitaiVersion | CivitaiModel | Number) -> None:
        if isinstance(reference, CivitaiVersion):
            self._by_version(reference.version_id)
        elif isinstance(reference, CivitaiModel):
            self._by_model(reference.model_id)
        else:
            number = reference.number
            if not self._by_version(number) and not self._by_model(number):
                self.named(str(number), "")

    def elsewhere(self, name: str) -> None:
        """A file of another place: one here of the same name need not have the same bytes."""
        alike = [one.name for one in self._usable if stem(one.name) == stem(name)]
        self._suggestions = tuple(alike[:MOST_SUGGESTIONS])
        self.say(
            f"{len(alike)} files here have the name {stem(name)!r}; a name alone does not prove"
            " that they are the file at that address."
        )

    def _by_title(self, name: str, digits: str) -> bool:
        kinds = (HashKind.SHA256, HashKind.AUTOV1)
        fitting = [one for kind in kinds for one in matching(digits, kind, self._usable)]
        titled = f"{name} [{digits}]"
        if any(one.name == titled or stem(one.name) == titled for one in self._usable):
            return self._by(titled, "name", lambda one: one.name)
        if self._take(fitting, "hash of the title", f"hash {digits}"):
            if self._found and stem(self._found[0].name).casefold() != stem(name).casefold():
                self.say(f"Its name here is {self._found[0].name!r}, not {name!r}.")
            return True
        # The name may well be there with other bytes: that is another model.
        alike = [one for one in self._usable if stem(one.name) == stem(name)]
        hashed = [one for one in alike if one.sha256]
        if hashed and len(hashed) == len(alike):
            self._suggestions = tuple(one.name for one in alike[:MOST_SUGGESTIONS])
            self.say(f"{name!r} is here with other bytes than {digits}; it is not used.")
            return True
        return False

    def _of_embedded(self, digits: str) -> bool:
        if len(digits) not in {12, 64}:
            return False
        claiming = [one for one in self._usable if one.embedded and _fits(digits, one.embedded)]
        if not claiming:
            return False
        return self._take(claiming, "embedded hash", f"hash {digits} claimed by the file itself")

    def _by_version(self, version_id: int) -> bool:
        found = [one for one in self._usable if version_id and one.version_id == version_id]
        return self._take(found, "version", f"version {version_id} of Civitai")

    def _by_model(self, model_id: int) -> bool:
        found = [one for one in self._usable if model_id and one.model_id == model_id]
        return self._take(found, "model", f"model {model_id} of Civitai")

    def _by(self, wanted: str, how: str, name_of: Callable[[ModelFile], str]) -> bool:
        named = [one for one in self._usable if name_of(one)]
        try:
            found = search(wanted, named, name_of)
        except NoMatch as several:
            names = set(several.suggestions)
            return self._take(
                [one for one in named if name_of(one) in names], how, f"{how} {wanted!r}"
            )
        return self._take([found] if found is not None else [], how, f"{how} {wanted!r}")

    def _take(self, fitting: list[ModelFile], how: str, what: str) -> bool:
        """Note what fits; return whether the search is over, by one model or by several."""
        if not fitting:
            self.say(f"No file has the {what}.")
            return False
        first = fitting[0]
        if all(_same_bytes(one, first) for one in fitting):
            unique = list({one.path: one for one in fitting}.values())
            self._found, self._how = unique, how
            self.say(f"{first.name!r} has the {what}.")
            return True
        names = tuple(dict.fromkeys(one.name for one in fitting))
        self._suggestions = names[:MOST_SUGGESTIONS]
        self.say(f"{len(fitting)} different files have the {what}; none is chosen.")
        return True

    def _tell_broken(self, name: str) -> None:
        for one in self._broken:
            if stem(one.name).casefold() == stem(name).casefold():
                self.say(f"{one.name!r} is not used: {one.problem}.")


def _kind(reference: Reference) -> ModelType | None:
    return reference.kind if isinstance(reference, Name | Tag) else None


def _same_bytes(one: ModelFile, other: ModelFile) -> bool:
    return one.path == other.path or (one.sha256 == other.sha256 != "")


def _fits(digits: str, whole: str) -> bool:
    shorter, longer = sorted((digits, whole), key=len)
    return bool(shorter) and longer.startswith(shorter)


def _hashes(one: ModelFile, kind: HashKind) -> tuple[str, ...]:
    match kind:
        case HashKind.SHA256 | HashKind.AUTOV2:
            return (one.sha256,)
        case HashKind.TENSORS | HashKind.AUTOV3:
            return (one.tensors_sha256,)
        case HashKind.BLAKE3:
            return (one.blake3,)
        case HashKind.AUTOV1:
            return (one.autov1,)
        case HashKind.CRC32:
            return (one.crc32,)
