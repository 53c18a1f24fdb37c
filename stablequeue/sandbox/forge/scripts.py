"""Scripts of the web UI, as far as a client can name them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from stablequeue.sandbox.forge.answers import Failure, Refusal
from stablequeue.sandbox.forge.facts import rows
from stablequeue.sandbox.forge.payloads import AnyPayload, Img2ImgPayload

_NOT_FOUND = 422

# Scripts that write their arguments into the infotext: keys in the order of the arguments.
_TELLING = {
    "freeu integrated (sd 1.x, sd 2.x, sdxl)": (
        "freeu_enabled",
        "freeu_b1",
        "freeu_b2",
        "freeu_s1",
        "freeu_s2",
        "freeu_start",
        "freeu_end",
    )
}


class _Given(BaseModel):
    args: list[Any] = []


def check_scripts(payload: AnyPayload) -> None:
    """Refuse names of scripts that do not exist, before the job waits.

    Raises:
        Refusal: 422.
    """
    is_img2img = isinstance(payload, Img2ImgPayload)
    known: dict[str, dict[str, Any]] = {
        script["name"]: script
        for script in rows("script_info")
        if script["is_img2img"] == is_img2img
    }
    if payload.script_name:
        script = known.get(payload.script_name.lower())
        if script is None or script["is_alwayson"]:
            raise Refusal(_NOT_FOUND, f"Script '{payload.script_name}' not found")
    for name in payload.alwayson_scripts:
        script = known.get(name.lower())
        if script is None:
            raise Refusal(_NOT_FOUND, f"Script '{name}' not found")
        if not script["is_alwayson"]:
            raise Refusal(_NOT_FOUND, f"Script '{name}' is not an always on script")


def script_extras(scripts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what always-on scripts add to the infotext.

    Raises:
        Failure: TypeError for arguments that are no list.
    """
    extra: dict[str, Any] = {}
    for name, given in scripts.items():
        try:
            args = _Given.model_validate(given).args
        except ValidationError as error:
            raise Failure("TypeError", "arguments of a script must be a list") from error
        keys = _TELLING.get(name.lower())
        if keys is None:
            continue
        script = next(s for s in rows("script_info") if s["name"] == name.lower())
        values: list[Any] = [arg["value"] for arg in script["args"]]
        values[: len(args)] = args[: len(values)]
        if values[0]:
            extra |= dict(zip(keys, values, strict=False))
    return extra
