"""A1111's infotext: the text that tells how a picture was made, read and written.

::

    prompt, over any number of lines
    Negative prompt: likewise
    Steps: 20, Sampler: Euler a, Hashes: {"model": "1a2b3c4d5e"}, Template: "a, b"

Values with a comma, a colon or a line break are JSON strings; some tools write bare JSON objects
and lists. Reading never fails and takes time in proportion to the text. Facts from recorded
infotexts of Forge, from A1111's and from Civitai's own (see `tests/recordings/infotext`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stablequeue.errors import UnreadableFile

LARGEST_INFOTEXT = 1_000_000
"""Characters of an infotext we look at."""

_NEGATIVE = "Negative prompt:"
_FIRST_PAIR = re.compile(r"Steps: *\d+(?: *,|\s*$)")
_FEWEST_PAIRS = 3
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_KEY = re.compile(r'[^\s,:"{}\[\]][^,:"{}\[\]\n]{0,100}:')
_JSON_TRIES = 20
_NEEDS_QUOTES = re.compile(r'[,:\r\n]|^[\s"{\[]|\s$')


@dataclass(frozen=True, slots=True, kw_only=True)
class Infotext:
    """A parsed infotext.

    Attributes:
        params: The last lines' pairs in their order, values as text without their quotes
            (JSON objects and lists as they stand).
    """

    prompt: str = ""
    negative_prompt: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str])


def parse_infotext(text: str) -> Infotext:
    """Read an infotext; text without parameters is all prompt.

    Raises:
        UnreadableFile: It is longer than any infotext.
    """
    if len(text) > LARGEST_INFOTEXT:
        raise UnreadableFile(f"an infotext of {len(text)} characters is too long to be one")
    lines = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    start, params = _find_params(lines)
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in lines[:start]:
        stripped = line.strip()
        if stripped.startswith(_NEGATIVE):
            into, stripped = negative, stripped.removeprefix(_NEGATIVE).strip()
        into.append(stripped)
    return Infotext(
        prompt="\n".join(prompt).strip(),
        negative_prompt="\n".join(negative).strip(),
        params=params,
    )


def _find_params(lines: list[str]) -> tuple[int, dict[str, str]]:
    """Return the index of the first line of parameters (or one past the end), and the pairs."""
    for index in range(len(lines) - 1, -1, -1):
        if _FIRST_PAIR.match(lines[index].lstrip()):
            return index, parse_params("\n".join(lines[index:]))
    params = parse_params(lines[-1])
    if len(params) >= _FEWEST_PAIRS:
        return len(lines) - 1, params
    return len(lines), {}


def parse_params(text: str) -> dict[str, str]:
    """Read `Key: value, Key: value`; the last of equal keys wins.

    A piece without a key of its own belongs to the value before it, whose comma somebody forgot
    to quote.
    """
    pairs: dict[str, str] = {}
    last = ""
    for key, value in _pieces(text):
        if key:
            pairs.pop(key, None)
            pairs[key] = value
            last = key
        elif last and value:
            pairs[last] = f"{pairs[last]}, {value}"
    return pairs


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield (key, value); the key is empty for a piece that has none."""
    decoder = json.JSONDecoder()
    json_tries = _JSON_TRIES
    position, end = 0, len(text)
    while position < end:
        if text[position] in ", \t\n":
            position += 1
            continue
        key = ""
        if match := _KEY.match(text, position):
            key = match.group()[:-1].strip()
            position = match.end()
            while position < end and text[position] in " \t":
                position += 1
        value, after = "", -1
        first = text[position : position + 1]
        if first == '"' and (quoted := _QUOTED.match(text, position)):
            value, after = _unquoted(quoted.group()), quoted.end()
        elif first and first in "{[" and json_tries > 0:
            try:
                _, after = decoder.raw_decode(text, position)
                value = text[position:after]
            except (ValueError, RecursionError):
                json_tries -= 1
        if after < 0 or not _ends_piece(text, after):
            json_tries -= after >= 0  # what looks so twice is damage; reading it must stay cheap
            comma = text.find(",", position)
            after = comma if comma >= 0 else end
            value = text[position:after].strip()
        yield key, value
        position = after + 1


def _ends_piece(text: str, position: int) -> bool:
    rest = text[position : position + 50].lstrip(" \t\n")
    return not rest or rest[0] == ","


def _unquoted(text: str) -> str:
    try:
        value: object = json.loads(text, strict=False)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def format_infotext(infotext: Infotext) -> str:
    """Write an infotext as A1111 does; `parse_infotext` gives it back."""
    parts = [infotext.prompt] if infotext.prompt else []
    if infotext.negative_prompt:
        parts.append(f"{_NEGATIVE} {infotext.negative_prompt}")
    if infotext.params:
        parts.append(format_params(infotext.params))
    return "\n".join(parts)


def format_params(params: Mapping[str, str]) -> str:
    """Write `Key: value, Key: value`."""
    return ", ".join(f"{key}: {_quoted(value)}" for key, value in params.items())


def _quoted(value: str) -> str:
    if not _NEEDS_QUOTES.search(value) or _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_json(value: str) -> bool:
    """Say whether the value is an object or list, which stands unquoted."""
    if value[:1] not in {"{", "["}:
        return False
    try:
        _, after = json.JSONDecoder().raw_decode(value)
    except (ValueError, RecursionError):
        return False
    return after == len(value)
