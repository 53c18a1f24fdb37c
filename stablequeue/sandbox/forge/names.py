"""Names the server looks up: samplers, schedulers, LoRAs, upscalers, styles.

Only exact names count. Unknown samplers and schedulers become the first of their list, unknown
LoRAs and styles are left out, all without a word.
"""

import re
from collections.abc import Sequence

from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.checkpoints import Lora, Shelf
from stablequeue.sandbox.forge.facts import rows, samplers, schedulers
from stablequeue.sandbox.forge.payloads import AnyPayload

_LORA = re.compile(r"<lora:([^:>]+)(?::([^:>]*))?[^>]*>")

STYLES: Sequence[dict[str, str | None]] = (
    {"name": "---------------- STYLES ----------------", "prompt": None, "negative_prompt": None},
    {"name": "Test card", "prompt": "{prompt}, test card", "negative_prompt": "noise"},
)


def resolve_sampler(
    name: str, scheduler: str | None, *, forge: bool
) -> tuple[str, str, str | None]:
    """Return sampler, scheduler label as asked, and the label it has in fact, if any.

    Only exact names count, but a scheduler may be the end of a sampler's name
    (`DPM++ 2M Karras`). Anything else becomes the first of the list.
    """
    known = schedulers(forge=forge)
    by_name = {s[key]: s for key in ("label", "name") for s in known}
    found = by_name.get(scheduler, known[0])
    for candidate in known:
        aliases: list[str] = candidate["aliases"] or []
        endings: list[str] = [candidate["label"], candidate["name"], *aliases]
        ending = next((e for e in endings if name.endswith(f" {e}")), None)
        if ending is not None:
            name, found = name.removesuffix(f" {ending}"), candidate
            break
    all_samplers = samplers(forge=forge)
    sampler = next((s for s in all_samplers if s["name"] == name), all_samplers[0])
    own = sampler["options"].get("scheduler")
    if own == found["name"]:
        found = known[0]
    effective = found["name"] if found is not known[0] else own
    label = by_name[effective]["label"] if effective in by_name else None
    return sampler["name"], found["label"], label


def find_loras(prompt: str, shelf: Shelf) -> list[tuple[str, float, Lora]]:
    """Return (name as written, weight, LoRA) of those in `prompt` that exist."""
    found: list[tuple[str, float, Lora]] = []
    for name, weight in _LORA.findall(prompt):
        lora = shelf.find_lora(name)
        if lora is not None:
            found.append((name, _weight(weight), lora))
    return found


def _weight(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 1.0


def upscaler_names(shelf: Shelf) -> list[str]:
    """Return the upscalers there are, with those on the shelf."""
    return [*(u["name"] for u in rows("upscalers")), *shelf.upscalers]


def apply_styles(payload: AnyPayload) -> tuple[str, str]:
    """Return prompt and negative prompt with the known styles applied.

    Raises:
        Failure: AssertionError when one is null.
    """
    if payload.prompt is None or payload.negative_prompt is None:
        raise Failure("AssertionError")
    prompt, negative = payload.prompt, payload.negative_prompt
    known = {style["name"]: style for style in STYLES}
    for name in payload.styles or []:
        style = known.get(name)
        if style is not None:
            prompt = _styled(style["prompt"], prompt)
            negative = _styled(style["negative_prompt"], negative)
    return prompt, negative


def _styled(style: str | None, prompt: str) -> str:
    if not style:
        return prompt
    if "{prompt}" in style:
        return style.replace("{prompt}", prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)
