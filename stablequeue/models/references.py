"""What a person may give for a model, read into what it means. Pure; nothing is looked up.

====================================================  =====================================
given                                                 becomes
====================================================  =====================================
`folder/name.safetensors`, either slash, base name    Name
`name.safetensors [1a2b3c4d5e]`                       Name, with the hash of the title
8, 10, 12 or 64 hex digits, `sha256:...`, `0x...`     Hash (also tried as a name)
`<lora:name:0.8>`, `embedding:name`                   Tag, Name
a Civitai page or download address                    CivitaiVersion, CivitaiModel, -Image
`urn:air:sdxl:lora:civitai:1@2`, `1@2`, `version:2`   CivitaiVersion, CivitaiModel
a number                                              Number: a version or a model of Civitai
`hf:owner/repo/file@revision`, its address            HuggingFaceFile
any other https address                               DirectUrl
====================================================  =====================================

`str()` of a reference is its canonical text, without secrets; except for DirectUrl, whose
secrets are left out, it reads back as the same reference.

Sources: Civitai's own parsers of addresses and of AIR (2026-08), A1111's extra networks.
"""

import re
from collections.abc import Callable

from stablequeue.errors import BadRequest
from stablequeue.model_names import SUFFIXES, TITLE_HASH, without_suffix
from stablequeue.models import addresses
from stablequeue.models.identities import is_nothing
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.reference_types import (
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

__all__ = [
    "CivitaiImage",
    "CivitaiModel",
    "CivitaiVersion",
    "DirectUrl",
    "Hash",
    "HashKind",
    "HuggingFaceFile",
    "Name",
    "Number",
    "Reference",
    "Tag",
    "parse_reference",
]

LONGEST = 4_000
"""Characters of a reference."""

LARGEST_ID = 2**31 - 1
"""Of Civitai's ids; a larger one is answered with 400."""


_BY_LENGTH = {
    8: (HashKind.AUTOV1, HashKind.CRC32),
    10: (HashKind.AUTOV2,),
    12: (HashKind.AUTOV3, HashKind.SHA256),  # Forge writes the beginning of the SHA-256 instead
    64: (HashKind.SHA256, HashKind.BLAKE3, HashKind.TENSORS),
}
_LENGTHS = {
    HashKind.SHA256: range(10, 65),
    HashKind.BLAKE3: range(64, 65),
    HashKind.TENSORS: range(12, 65),
    HashKind.AUTOV3: range(12, 13),
    HashKind.AUTOV2: range(10, 11),
    HashKind.AUTOV1: range(8, 9),
    HashKind.CRC32: range(8, 9),
}
_PREFIXED = re.compile(rf"({'|'.join(HashKind)}):(?:0x)?(.*)", re.IGNORECASE)
_DIGITS = re.compile(r"(?:0x)?([0-9a-f]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_AIR = re.compile(
    r"""(?:urn:)?(?:air:)?(?:(?P<ecosystem>[\w-]*):)??(?:(?P<type>[\w-]*):)??
        (?P<source>[a-z][\w-]*):(?P<id>[\w./-]+?)(?:@(?P<version>[\w./-]+?))?
        (?::[\w-]+)?(?:\+(?P<file>[0-9]+))?(?:\.(?P<format>[a-z]+))?""",
    re.IGNORECASE | re.VERBOSE,
)
_PAIR = re.compile(r"([0-9]+)@([0-9]+)(?:\+([0-9]+))?")
_SHORT = re.compile(r"(version|model|image):([0-9]+)(?:\+([0-9]+))?", re.IGNORECASE)
_TAG = re.compile(r"<(\w+):([^<>]+)>")
_HF = re.compile(r"(?:hf|huggingface):(?!//)(.+)", re.IGNORECASE)
_HF_BARE = re.compile(
    rf"([\w.-]+/[\w.-]+/.+(?:{'|'.join(map(re.escape, SUFFIXES))})@.+)", re.IGNORECASE
)
_STRONGEST = 100.0


def parse_reference(text: str, *, field: str = "model") -> Reference:
    """Read what a person gave for a model.

    Args:
        text: One reference; spaces and quotes around it do not matter.
        field: What to call it in the error.

    Raises:
        BadRequest: It can mean no model; says why, and never repeats a secret.
    """
    given = text.strip()
    while len(given) > 1 and given[0] == given[-1] and given[0] in "\"'":
        given = given[1:-1].strip()
    if not given:
        raise BadRequest(field, "no model is named")
    if len(given) > LONGEST:
        raise BadRequest(field, f"{len(given)} characters are too many for a model")
    if not given.isprintable():
        raise BadRequest(field, "a model's name has no line breaks or control characters")
    try:
        for read in _READERS:
            if (found := read(given)) is not None:
                return found
    except _Wrong as wrong:
        raise BadRequest(field, str(wrong)) from None
    return _name(given)


class _Wrong(Exception):
    """Why a text of a known form can mean no model."""


def _name(text: str) -> Name:
    title = TITLE_HASH.search(text)
    # A file's own name may end like a hash: only what stands behind a suffix is surely one, but
    # Forge lists names without suffix too. The resolver tries the whole text first.
    return Name(text[: title.start()], title[1].lower()) if title else Name(text)


def _tag(text: str) -> Reference | None:
    match = _TAG.fullmatch(text)
    if match is None:
        if text.startswith("<"):
            raise _Wrong("a tag is written <lora:name:weight>")
        return None
    kind = type_of(match[1])
    if kind is not ModelType.LORA and kind is not ModelType.HYPERNETWORK:
        raise _Wrong(f"<{match[1][:40]}:...> names no model; LoRAs are written <lora:name:weight>")
    name, *arguments = match[2].split(":")
    if not name.strip():
        raise _Wrong("a tag is written <lora:name:weight>")
    weights: dict[str, float] = {}
    for position, argument in enumerate(arguments):
        key, equals, value = argument.rpartition("=")
        key = key.strip() if equals else ("te", "unet", "dyn")[min(position, 2)]
        weights[key] = _weight(value)
    text_weight = weights.get("te", 1.0)
    return Tag(name.strip(), kind, weights.get("unet", text_weight), text_weight)


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -_STRONGEST <= value <= _STRONGEST:
        raise _Wrong(f"{text.strip()[:40]!r} is no weight from -100 to 100")
    return value


def _embedding(text: str) -> Reference | None:
    word, colon, name = text.partition(":")
    if not colon or word.casefold() != "embedding":
        return None
    if not name.strip():
        raise _Wrong("an embedding is written embedding:name")
    return Name(name.strip(), kind=ModelType.EMBEDDING)


def _address(text: str) -> Reference | None:
    try:
        address = addresses.split(text)
        if address is None:
            return None
        if addresses.is_civitai(address):
            return _civitai(addresses.civitai(address))
        if addresses.is_hugging_face(address):
            return HuggingFaceFile(*addresses.hugging_face(address))
        return DirectUrl(addresses.direct(address))
    except addresses.WrongAddress as error:
        raise _Wrong(str(error)) from None


def _civitai(ids: addresses.CivitaiIds) -> Reference:
    if ids.image:
        return CivitaiImage(_id(ids.image))
    if ids.version:
        return CivitaiVersion(
            _id(ids.version), _optional_id(ids.model), _optional_id(ids.file), wish=ids.wish
        )
    return CivitaiModel(_id(ids.model))


def _air(text: str) -> Reference | None:
    match = _AIR.fullmatch(text)
    claimed = text.casefold().startswith(("urn:", "air:"))
    source = match["source"].casefold() if match is not None else ""
    if claimed and source in {"", "urn", "air"}:
        raise _Wrong("an AIR is written urn:air:sdxl:lora:civitai:MODEL@VERSION")
    if match is None or (not claimed and source != "civitai"):
        return None
    if source != "civitai":
        raise _Wrong(
            f"AIRs of the source {source[:40]!r} cannot be fetched;"
            " give the file's address or hf:owner/repo/file"
        )
    kind = type_of(match["type"] or "")
    model = _id(match["id"])
    if match["version"]:
        return CivitaiVersion(_id(match["version"]), model, _optional_id(match["file"]), kind)
    return CivitaiModel(model, kind)


def _pair(text: str) -> Reference | None:
    match = _PAIR.fullmatch(text)
    return match and CivitaiVersion(_id(match[2]), _id(match[1]), _optional_id(match[3]))


def _short(text: str) -> Reference | None:
    match = _SHORT.fullmatch(text)
    if match is None:
        return None
    word, number, file = match[1].casefold(), _id(match[2]), _optional_id(match[3])
    if word == "version":
        return CivitaiVersion(number, file_id=file)
    return CivitaiModel(number) if word == "model" else CivitaiImage(number)


def _id(text: str) -> int:
    # Digits only: int() takes underscores and digits of other scripts.
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text) or int(text) > LARGEST_ID:
        raise _Wrong(f"{text[:40]!r} is no id of Civitai")
    return int(text)


def _optional_id(text: str | None) -> int:
    return _id(text) if text else 0


def _hash(text: str) -> Reference | None:
    kinds: tuple[HashKind, ...] | None
    if match := _PREFIXED.fullmatch(text):
        kind, digits = HashKind(match[1].lower()), match[2].strip().lower()
        if not re.fullmatch("[0-9a-f]+", digits) or len(digits) not in _LENGTHS[kind]:
            allowed = _LENGTHS[kind]
            raise _Wrong(f"{kind} has {_spoken(allowed)} hex digits")
        kinds = (kind,)
    elif match := _DIGITS.fullmatch(text):
        digits = match[1].lower()
        kinds = _BY_LENGTH.get(len(digits))
        if kinds is None:
            return None
    else:
        return None
    if is_nothing(digits):
        raise _Wrong("this is the hash of no bytes, which broken tools write; it names no model")
    return Hash(digits, kinds, text)


def _spoken(lengths: range) -> str:
    return f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else str(lengths[0])


def _number(text: str) -> Reference | None:
    if not _NUMBER.fullmatch(text) or int(text) > LARGEST_ID:
        return None
    return Number(int(text))


def _hugging_face(text: str) -> Reference | None:
    match = _HF.fullmatch(text) or _HF_BARE.fullmatch(text)
    if match is None:
        return None
    where, at, revision = match[1].rpartition("@")
    if not at or (without_suffix(revision) != revision and without_suffix(where) == where):
        where, revision = match[1], "main"  # an @ of the file's own name
    try:
        return HuggingFaceFile(*addresses.repository_file(where, revision))
    except addresses.WrongAddress as error:
        raise _Wrong(str(error)) from None


_READERS: tuple[Callable[[str], Reference | None], ...] = (
    _tag,
    _embedding,
    _address,
    _hash,
    _short,
    _hugging_face,
    _air,
    _pair,
    _number,
)
