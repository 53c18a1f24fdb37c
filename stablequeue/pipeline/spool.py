"""The spool: what a server made, on our disk, before it is stored.

A result is one folder per attempt, complete when `result.json` has been renamed into it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from stablequeue.engines.base import Kind, RawAsset, RawResult
from stablequeue.errors import StoreUnavailable

RESULT = "result.json"


class _Asset(TypedDict):
    file: str
    kind: Kind
    mime: str
    name: str
    infotext: str
    meta: dict[str, Any]


class _Result(TypedDict):
    assets: list[_Asset]
    warnings: list[str]
    censored: bool
    effective: dict[str, Any]


_WRITTEN = TypeAdapter(_Result)


def attempt_folder(spool: Path, index: int, attempt: int) -> Path:
    """Return the folder of one attempt's result inside a job's spool."""
    return spool / f"{index}-{attempt}"


def remove_attempts(spool: Path, index: int) -> None:
    """Remove what every attempt at one picture left in a job's spool: the picture is stored."""
    for folder in spool.glob(f"{index}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path) -> None:
    """Make the folder; what lies there and is no whole result is removed: it may be in the way.

    Raises:
        StoreUnavailable: The disk does not let us.
    """
    try:
        if read_result(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_trouble(error) from error


def disk_trouble(error: OSError) -> StoreUnavailable:
    """Translate a fault of the disk under the spool."""
    reason = error.strerror or type(error).__name__
    return StoreUnavailable(
        "spool", f"cannot write there: {reason}. Make room or correct the folder's rights."
    )


def write_result(folder: Path, result: RawResult) -> None:
    """Mark the result in `folder` complete: flushed to disk, then renamed.

    Raises:
        StoreUnavailable: The disk does not let us.
    """
    data: _Result = {
        "assets": [
            {
                "file": asset.path.name,
                "kind": asset.kind,
                "mime": asset.mime,
                "name": asset.name,
                "infotext": asset.infotext,
                "meta": asset.meta,
            }
            for asset in result.assets
        ],
        "warnings": list(result.warnings),
        "censored": result.censored,
        "effective": result.effective,
    }
    draft = folder / f"{RESULT}.part"
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / RESULT)
    except OSError as error:
        raise disk_trouble(error) from error


def read_result(folder: Path) -> RawResult | None:
    """Return the complete result in `folder`, or None: absent, damaged or files missing."""
    try:
        written = _WRITTEN.validate_json((folder / RESULT).read_bytes())
    except (OSError, ValidationError):
        return None
    assets = tuple(
        RawAsset(
            path=folder / Path(entry["file"]).name,
            kind=entry["kind"],
            mime=entry["mime"],
            name=entry["name"],
            infotext=entry["infotext"],
            meta=entry["meta"],
        )
        for entry in written["assets"]
    )
    try:
        if not all(asset.path.is_file() for asset in assets):
            return None
    except OSError:  # a name longer than any file's, for example
        return None
    return RawResult(
        assets=assets,
        warnings=tuple(written["warnings"]),
        censored=written["censored"],
        effective=written["effective"],
    )
