"""Numbers of bytes for people."""

_STEP = 1000
_SHORT = 10


def size(count: float) -> str:
    """Return a number of bytes in decimal units, as file managers and model sites show them."""
    if count < _STEP:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= _STEP
        if count < _STEP - 0.5:  # else it would round to 1000
            digits = 1 if count < _SHORT or unit == "GB" else 0
            return f"{count:.{digits}f} {unit}"
    return f"{count / _STEP:.1f} TB"
