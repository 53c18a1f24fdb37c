"""The server's options: defaults, and what `config.json` holds.

Two facts cause surprises. Only keys that are *present* (in `config.json` or set since the boot)
are restored after a job's overrides, so overriding any other key leaks into every later job.
And `POST /sdapi/v1/options` stores a value of any type, after which `GET` fails for everybody.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.facts import facts
from stablequeue.sandbox.forge.settings import ForgeSettings

CHECKPOINT = "sd_model_checkpoint"
CHECKPOINT_HASH = "sd_checkpoint_hash"
MODULES = "forge_additional_modules"
VAE = "sd_vae"

# A fresh install's file: extensions' keys, and what choosing a checkpoint wrote.
_FRESH: dict[str, Any] = {"SCUNET_tile": 256, "SCUNET_tile_overlap": 8, "SWIN_tile": 192}


class Options:
    """Options of one boot.

    Attributes:
        data: What is present, by key.
    """

    def __init__(
        self, settings: ForgeSettings, file: Path, keep_modules: Callable[[Any], list[str]]
    ) -> None:
        forge_only = () if settings.is_forge else ("forge_",)
        self._defaults: dict[str, Any] = {
            key: value
            for key, value in facts("options").items()
            if not key.startswith(tuple(forge_only))
        }
        self._keep_modules = keep_modules
        self._file = file
        self.data: dict[str, Any] = self._read() or dict(_FRESH)
        if settings.checkpoint:
            self.data.setdefault(CHECKPOINT, settings.checkpoint)

    def _read(self) -> dict[str, Any]:
        try:
            text = self._file.read_text("utf-8")
            return TypeAdapter(dict[str, Any]).validate_json(text)
        except (OSError, ValueError):
            return {}

    def save(self) -> None:
        """Write `config.json`."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self.data, indent=4), encoding="utf-8")

    def __getitem__(self, key: str) -> Any:
        """Return an option's value, or its default."""
        return self.data[key] if key in self.data else self._defaults.get(key)

    def text(self, key: str) -> str:
        """Return an option as text; empty when it is none."""
        value = self[key]
        return value if isinstance(value, str) else ""

    def whole(self, key: str, default: int) -> int:
        """Return an option as a whole number.

        Raises:
            Failure: Somebody stored something else.
        """
        value = self[key]
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Failure("TypeError", f"option {key} is not a number")
        try:
            return int(value)
        except (ValueError, OverflowError) as error:
            raise Failure(type(error).__name__, str(error)) from error

    def set(self, key: str, value: Any) -> None:
        """Store a value of whatever type.

        Raises:
            Failure: KeyError for a key the server does not have.
        """
        if key not in self._defaults:
            raise Failure("KeyError", repr(key))
        self.data[key] = self._keep_modules(value) if key == MODULES else value

    def post(self, wanted: Mapping[str, Any], is_checkpoint: Callable[[Any], bool]) -> None:
        """Act out `POST /sdapi/v1/options`.

        Raises:
            Failure: RuntimeError for an unknown checkpoint, before anything is stored; KeyError
                for an unknown key, with what came before it stored but not written.
        """
        checkpoint = wanted.get(CHECKPOINT)
        if checkpoint is not None and not is_checkpoint(checkpoint):
            raise Failure("RuntimeError", f"model {checkpoint!r} not found")
        for key, value in wanted.items():
            self.set(key, value)
        self.save()

    def present(self, wanted: Iterable[str]) -> dict[str, Any]:
        """Return what can be restored after a job's overrides: only keys already present."""
        return {key: self.data[key] for key in wanted if key in self.data}

    def apply(self, wanted: Mapping[str, Any]) -> None:
        """Apply a job's overrides.

        Raises:
            Failure: KeyError for an unknown key; those before it stay applied.
        """
        for key, value in wanted.items():
            self.set(key, value)

    def restore(self, before: Mapping[str, Any]) -> None:
        """Put back what `present` returned."""
        self.data.update(before)

    def listed(self) -> dict[str, Any]:
        """Return the answer of `GET /sdapi/v1/options`.

        Raises:
            Failure: ResponseValidationError when a stored value has a wrong type.
        """
        told: dict[str, Any] = {}
        problems: list[dict[str, Any]] = []
        for key, default in self._defaults.items():
            value = self[key]
            adapter = _adapter(default)
            if adapter is None or value is None:
                told[key] = value
                continue
            try:
                told[key] = adapter.validate_python(value)
            except ValidationError as error:
                problems += [_problem(key, dict(e)) for e in error.errors()]
        if problems:
            raise Failure("ResponseValidationError", summary(problems), self._everything())
        return told

    def _everything(self) -> dict[str, Any]:
        return {key: self[key] for key in self._defaults}

    def names(self) -> Iterable[str]:
        """Return every key there is, in the server's order."""
        return self._defaults.keys()


def _adapter(default: Any) -> TypeAdapter[Any] | None:
    """Return the type the answer has for an option: any, if its default is empty or zero."""
    if not default:
        return None
    if isinstance(default, bool):
        return TypeAdapter(bool)
    if isinstance(default, int | float):
        return TypeAdapter(float)
    if isinstance(default, str):
        return TypeAdapter(str)
    return TypeAdapter(list[Any])


def _problem(key: str, error: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": error["type"],
        "loc": ("response", key),
        "msg": error["msg"],
        "input": error["input"],
        "url": f"https://errors.pydantic.dev/2.8/v/{error['type']}",
    }


def summary(problems: list[dict[str, Any]]) -> str:
    """Return the message of a response that does not fit its model."""
    lines = "".join(f"  {problem}\n" for problem in problems)
    return f"{len(problems)} validation errors:\n{lines}"
