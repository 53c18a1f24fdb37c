"""What is wanted and what a source offers: plain data, so that another process can take it up.

An `Offer` carries no secret and no signed address. Its `url` is where every try begins anew: the
source redirects from there to wherever the bytes are at that moment, so a fresh signed address is
had by asking the same URL again. Who gets which header is decided by `access.Access`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file somebody asks for, before any source was asked. Everything in it may be hostile.

    Attributes:
        url: Where it is said to be.
        name: File name it should have, maybe with folders; empty: the source's own.
        kind: Kind of model, one of `kinds.KINDS`; empty: not told.
        folder: ComfyUI's model folder it should be in, as told; empty: not told.
        sha256: Lower case hex; empty: not told.
    """

    url: str
    name: str = ""
    kind: str = ""
    folder: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One file that can be fetched.

    Attributes:
        source: `civitai`, `huggingface` or `direct`.
        ident: What names these very bytes at the source, without secrets; a partial download is
            only continued under the same one.
        url: Where each try begins.
        name: File name, made safe by `naming.safe_name`.
        kind: Kind of model, one of `kinds.KINDS`; empty: unknown.
        size: Bytes, exactly; 0: unknown.
        sha256: Of the whole file, lower case hex; empty: unknown.
        facts: What the source tells about model, version and file, for the sidecar files; JSON.
    """

    source: str
    ident: str
    url: str
    name: str
    kind: str = ""
    size: int = 0
    sha256: str = ""
    facts: JSON = field(default_factory=dict[str, Any])

    def to_json(self) -> JSON:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})
