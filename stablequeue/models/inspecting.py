"""What is read of a model file besides its hashes: header and sidecars, as columns of its row."""

import re
from pathlib import Path
from typing import Any

from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.models.architecture import architecture_of
from stablequeue.models.headers import Header, read_header
from stablequeue.models.identities import is_nothing
from stablequeue.models.sidecars import read_sidecars

_EMBEDDED = ("sshs_model_hash", "modelspec.hash_sha256")
_LONGEST = 300


def header_columns(path: Path) -> dict[str, Any]:
    """Return what a file's header shows; `problem` says why it cannot be used."""
    try:
        header = read_header(path)
    except (UnreadableFile, NotFound) as error:
        return {**_nothing(), "problem": str(error)}
    found = architecture_of(header)
    return {
        "problem": "",
        "format": header.format.value,
        "shown_kind": found.kind.value if found.kind else "",
        "family": found.family.value if found.family else "",
        "variant": found.variant,
        "prediction": found.prediction,
        "latent_channels": found.latent_channels,
        "alias": header.metadata.get("ss_output_name", "").strip()[:_LONGEST],
        "embedded": embedded_hash(header),
    }


def embedded_hash(header: Header) -> str:
    """Return the hash without header that a file claims for itself, 64 or 12 digits, or "".

    A convenience for finding, never a proof: trainers write it wrongly, some the hash of no bytes.
    """
    for key in _EMBEDDED:
        digits = header.metadata.get(key, "").strip().lower().removeprefix("0x")
        if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{12}", digits) and not is_nothing(digits):
            return digits
    return ""


def sidecar_columns(path: Path, beside: str) -> dict[str, Any]:
    """Return what a file's sidecars tell; `beside` is what the walk saw of them.

    Listing the folder for each of its files would take the square of their number.
    """
    present = [path.stem + stamp.partition(":")[0] for stamp in beside.split()]
    found = read_sidecars(path, present)
    return {
        "title": found.name[:_LONGEST],
        "base_model": found.base_model[:_LONGEST],
        "model_id": found.model_id,
        "version_id": found.version_id,
    }


def _nothing() -> dict[str, Any]:
    texts = ("format", "shown_kind", "family", "variant", "prediction", "alias", "embedded")
    return {**dict.fromkeys(texts, ""), "latent_channels": 0}
