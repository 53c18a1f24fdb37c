"""The command `stablequeue`.

Every command is a function in a module of this package that returns an exit code; `app` names
them without importing them, so that `--help` stays quick. `launch` turns failures into one line.
"""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None: this process's.

    Returns:
        0: done. 1: it failed. 2: misused, or a bad request. 130: Ctrl-C.
    """
    from stablequeue.cli.launch import launch  # noqa: PLC0415  # importing this costs nothing

    return launch(argv)


__all__ = ["main"]
