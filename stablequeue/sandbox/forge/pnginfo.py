"""What `png-info` makes of an infotext: its parameters, completed with the defaults of the UI."""

import json
import re
from collections.abc import Callable
from typing import Any

# A part ends at a comma that no quotation mark before it holds.
_PARTS = re.compile(r'(?:"[^"]*"|[^,"]|")+')
_SIZE = re.compile(r"^(\d+)x(\d+)$")
_FEWEST = 3
_NEGATIVE = "Negative prompt:"

# Added by the recorded server when the text does not say.
_DEFAULTS: dict[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Emphasis": "Original",
    "Refiner switch by sampling steps": False,
    "Hires VAE/TE": ["Use same choices"],
}


def parameters_of(infotext: str, alias_of_hash: Callable[[str], str | None]) -> dict[str, Any]:
    """Return the answer's `parameters`.

    As recorded, `Model` is left out when a hash is told, and LoRAs in the prompt get the alias of
    the one that has the hash the text tells.
    """
    *lines, last = infotext.strip().split("\n")
    pairs = _pairs(last)
    if len(pairs) < _FEWEST:
        lines.append(last)
        pairs = {}
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in (line.strip() for line in lines):
        text = line
        if text.startswith(_NEGATIVE):
            into, text = negative, text.removeprefix(_NEGATIVE).strip()
        into.append(text)
    told: dict[str, Any] = {}
    for key, value in pairs.items():
        size = _SIZE.match(value)
        if size:
            told[f"{key}-1"], told[f"{key}-2"] = size.groups()
        else:
            told[key] = value
    if "Model hash" in told:
        told.pop("Model", None)
    whole = "\n".join(prompt)
    for name, colon, short_hash in (
        p.partition(":") for p in told.get("Lora hashes", "").split(",")
    ):
        alias = alias_of_hash(short_hash.strip()) if colon else None
        if alias:
            whole = whole.replace(f"<lora:{name.strip()}:", f"<lora:{alias}:")
    told["Prompt"] = whole
    told["Negative prompt"] = "\n".join(negative)
    return {**told, **{key: value for key, value in _DEFAULTS.items() if key not in told}}


def _pairs(line: str) -> dict[str, str]:
    """Return the `key: value` pairs of a line separated by commas outside quotation marks."""
    pairs: dict[str, str] = {}
    for part in _PARTS.findall(line):
        key, colon, value = part.partition(":")
        if colon and key.strip():
            pairs[key.strip()] = _unquoted(value.strip())
    return pairs


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text
