"""Numbers of a request, with the failures the recorded server has for odd ones."""

import random
from typing import NoReturn, SupportsInt

from stablequeue.sandbox.forge.answers import Failure

_LATENT_PIXELS = 8
_SEEDS = 4_294_967_294


def raise_none(operation: str) -> NoReturn:
    """Raise what arithmetic with null raises."""
    message = f"unsupported operand type(s) for {operation}: 'NoneType' and 'int'"
    raise Failure("TypeError", message)


def whole(value: SupportsInt | None) -> int:
    """Return a whole number; null is a TypeError."""
    if value is None:
        raise_none("*")
    return int(value)


def real(value: float | None) -> float:
    """Return a number; null is a TypeError."""
    if value is None:
        raise Failure("TypeError", "float() argument must not be 'NoneType'")
    return float(value)


def latent_size(width: int, height: int) -> tuple[int, int]:
    """Return a size as pictures have it: whole latents of 8 pixels.

    Raises:
        Failure: RuntimeError for a negative one.
    """
    wide, high = int(width / _LATENT_PIXELS), int(height / _LATENT_PIXELS)
    worst = high if high < 0 else wide
    if worst < 0:
        message = f"Trying to create tensor with negative dimension {worst}: [4, {high}, {wide}]"
        raise Failure("RuntimeError", message)
    return wide * _LATENT_PIXELS, high * _LATENT_PIXELS


def shortened(steps: int, denoise: float) -> int:
    """Return how many of `steps` a pass over an existing picture takes."""
    if denoise != denoise:  # noqa: PLR0124 - not a number
        raise Failure("ValueError", "cannot convert float NaN to integer")
    return int(min(max(denoise, 0.0), 0.999) * steps) + 1


def pick_seed(value: int | None, rng: random.Random) -> int:
    """Return a seed: 32 random bits for -1 and null, others as they are, negative ones too."""
    if value is None or value == -1:
        return rng.randrange(_SEEDS)
    if not -(2**63) <= value < 2**64:
        raise Failure("RuntimeError", "Overflow when unpacking long long")
    return value
