"""What commands about models answer, as plain data: identify a file, resolve a text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stablequeue.errors import UnreadableFile
from stablequeue.models.architecture import Architecture, architecture_of
from stablequeue.models.headers import Format, Header, read_header
from stablequeue.models.identities import Identities, Progress, Stop, identify
from stablequeue.models.inspecting import embedded_hash
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from stablequeue.models.references import Reference, parse_reference
from stablequeue.models.resolving import Resolved, resolve
from stablequeue.models.sidecars import Sidecars, read_sidecars

_LONGEST_VALUE = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """Everything that can be told of one file.

    Attributes:
        problem: Why it cannot be used as a model; its hashes are told all the same.
        metadata: Of the header, long values (tag counts, pictures) cut.
        embedded: Hash without header as the file claims it; `embedded_wrong`: it is another.
    """

    path: Path
    identities: Identities
    format: Format
    architecture: Architecture
    tensors: int
    dtypes: Mapping[str, int]
    metadata: Mapping[str, str]
    embedded: str
    embedded_wrong: bool
    sidecars: Sidecars
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        preview = self.sidecars.preview
        return {
            **asdict(self),
            "path": str(self.path),
            "identities": self.identities.to_json(),
            "sidecars": {**asdict(self.sidecars), "preview": str(preview) if preview else None},
        }


def identify_file(
    path: Path, *, progress: Progress | None = None, stop: Stop | None = None
) -> Identified:
    """Tell all hashes, the architecture and the embedded metadata of a file.

    Raises:
        NotFound: There is no such file.
        FileInUse: It is being written. Retryable.
        Stopped: As `stop` wished.
    """
    identities = identify(path, progress=progress, stop=stop)
    problem = ""
    try:
        header = read_header(path)
    except UnreadableFile as error:
        header, problem = Header(format=Format.UNKNOWN), str(error)
    embedded = embedded_hash(header)
    return Identified(
        path=path,
        identities=identities,
        format=header.format,
        architecture=architecture_of(header),
        tensors=len(header.shapes),
        dtypes=header.dtypes,
        metadata={key: _cut(value) for key, value in header.metadata.items()},
        embedded=embedded,
        embedded_wrong=bool(embedded) and not identities.tensors_sha256.startswith(embedded),
        sidecars=read_sidecars(path),
        problem=problem,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What a text means: the reference it was read as, and the answer of the library."""

    reference: Reference
    resolved: Resolved

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        found = self.resolved
        return {
            "reference": str(self.reference),
            "as": type(self.reference).__name__,
            "file": found.file.to_json() if found.file else None,
            "how": found.how,
            "same": [str(one.path) for one in found.same],
            "suggestions": list(found.suggestions),
            "steps": list(found.steps),
        }


def resolve_text(library: Library, text: str, *, kind: ModelType | None = None) -> Explained:
    """Read what a person gave and find it in the library.

    Raises:
        BadRequest: It can mean no model.
    """
    reference = parse_reference(text)
    resolved = resolve(reference, library.files(), kind=kind)
    first = f"{str(reference)[:200]!r} is read as {_SPOKEN[type(reference).__name__]}."
    return Explained(
        reference=reference, resolved=replace(resolved, steps=(first, *resolved.steps))
    )


_SPOKEN = {
    "Name": "a name",
    "Tag": "a tag of a prompt",
    "Hash": "a hash",
    "CivitaiVersion": "a version on Civitai",
    "CivitaiModel": "a model on Civitai",
    "CivitaiImage": "a picture on Civitai",
    "Number": "an id of Civitai",
    "HuggingFaceFile": "a file on Hugging Face",
    "DirectUrl": "the address of a file",
}


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "..."
