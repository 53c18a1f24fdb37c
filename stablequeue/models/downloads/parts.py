"""The unfinished file beside its target, and the note of what is in it.

`name.safetensors` is fetched into `name.safetensors.part`; `name.safetensors.part.json` says of
which file (source, SHA-256, size, ETag) which bytes are there. Bytes are noted after they were
written, so what a killed process leaves is never less than its note says. A power cut may break
that; the SHA-256 at the end finds it out, and the whole is fetched once more.
"""

import contextlib
import json
import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, cast

from stablequeue.models.downloads.spans import Span, Spans
from stablequeue.models.sources.offer import Offer

PART = ".part"
NOTE = ".part.json"
_NEW_NOTE = ".part.json.new"
_VERSION = 1


@dataclass(slots=True, kw_only=True)
class Note:
    """What stands in a part file.

    Attributes:
        ident: The offer's.
        sha256: Promised; empty: none.
        size: Of the whole file, as the storage tells it; 0: not told yet.
        validator: The storage's strong ETag, or its date of change; empty: none.
        spans: Which bytes are there.
    """

    ident: str
    sha256: str = ""
    size: int = 0
    validator: str = ""
    spans: list[Span] = field(default_factory=list[Span])


class Part:
    """The part file of one target; whoever holds it owns the target's lock.

    Args:
        target: The name the finished file gets.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + PART)
        self._note_path = target.with_name(target.name + NOTE)
        self._new_note = target.with_name(target.name + _NEW_NOTE)

    def read(self) -> Note | None:
        """Return the note of what an earlier process left; None if it is of no use."""
        try:
            data = json.loads(self._note_path.read_bytes())
            length = self.path.stat().st_size
        except (OSError, ValueError, RecursionError):
            return None
        note = _understood(data)
        if note is None or any(end > length for _, end in note.spans):
            return None
        return note

    def write(self, note: Note) -> None:
        """Replace the note in one step.

        Raises:
            OSError: It cannot be written.
        """
        data = {
            "version": _VERSION,
            "ident": note.ident,
            "sha256": note.sha256,
            "size": note.size,
            "validator": note.validator,
            "spans": note.spans,
        }
        self._new_note.write_text(json.dumps(data), encoding="utf-8")
        self._new_note.replace(self._note_path)

    def open(self, *, anew: bool) -> FileIO:
        """Open the part file, emptied if `anew`; only its owner may read it.

        Raises:
            OSError: It cannot be made.
        """
        if anew:
            self.remove()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        return FileIO(os.open(self.path, flags, 0o666), "r+")

    def remove(self) -> None:
        """Remove part and note; fine if there are none.

        Raises:
            OSError: They cannot be removed.
        """
        for path in (self._note_path, self._new_note, self.path):
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the note alone: the part got its name."""
        for path in (self._note_path, self._new_note):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def continued(offer: Offer, note: Note | None) -> Note:
    """Return the note to go on with: the old one only if it is surely of the same file."""
    fresh = Note(ident=offer.ident, sha256=offer.sha256, size=offer.size)
    if note is None or (note.ident, note.sha256) != (offer.ident, offer.sha256):
        return fresh
    if offer.size and note.size and note.size != offer.size:
        return fresh
    if not note.validator and not offer.sha256:
        return fresh  # nothing would tell that the file was replaced meanwhile
    if note.size and any(end > note.size for _, end in note.spans):
        return fresh
    return note


def target_of(part: Path) -> Path | None:
    """Return the target a part file or a note belongs to; None for any other file."""
    for suffix in (_NEW_NOTE, NOTE, PART):
        if part.name.endswith(suffix) and part.name != suffix:
            return part.with_name(part.name.removesuffix(suffix))
    return None


def _understood(data: Any) -> Note | None:
    if not isinstance(data, dict):
        return None
    found = cast("dict[str, Any]", data)
    try:
        if found["version"] != _VERSION:
            return None
        spans = Spans((int(a), int(b)) for a, b in found["spans"] if 0 <= int(a) < int(b))
        return Note(
            ident=str(found["ident"]),
            sha256=str(found["sha256"]),
            size=max(int(found["size"]), 0),
            validator=str(found["validator"]),
            spans=spans.to_list(),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
