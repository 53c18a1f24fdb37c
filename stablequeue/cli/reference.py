"""Writes the command reference: `python -m stablequeue.cli.reference docs/reference/cli.md`."""

import re
import sys
from pathlib import Path

from stablequeue.cli.app import build

_HEAD = """\
# Command reference

Made from the commands themselves by `make docs`; a test compares.

Exit codes: 0 done, 1 failed, 2 misused or a bad request, 130 stopped with Ctrl-C. Whatever goes
wrong is one line on standard error that begins with `stablequeue:`; with `--json` it is also
`{"error": {"code": ..., "message": ...}}` on standard output.

These options may stand before or behind the name of every command:

"""
_EVERYWHERE = re.compile(r"\*\*Options of every command\*\*:\n\n((?:\* .*\n)+)\n?")


def reference() -> str:
    """Return the reference as Markdown."""
    text = build(imported=True).generate_docs(
        output_format="markdown", recursive=True, heading_level=1
    )
    common = _EVERYWHERE.search(text)
    options = common[1] if common else ""
    body = _EVERYWHERE.sub("", text)
    _, _, commands = body.partition("## Table of Contents")
    contents, _, rest = commands.partition("**Commands**:")
    _, _, sections = rest.partition("\n## ")
    return f"{_HEAD}{options}\n## Commands{contents}\n## {sections.rstrip()}\n"


def main() -> int:
    """Write the file named on the command line; without one, print."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(reference(), encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
