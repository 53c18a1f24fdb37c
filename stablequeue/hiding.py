"""Take secrets out of text that servers, stores and databases say, before anybody keeps it.

Such text ends in logs, in Prefect's states and in the catalogue. What can be known as a secret by
its form is replaced: the password in an address, the parameters of a signed address, and what
follows `Authorization`, `Bearer` and `Basic`; and whatever this process has used as a secret.
"""

import re

HIDDEN = "***"

_SHORTEST = 6
"""A shorter secret is not looked for: it may well be a part of some word."""

_used: set[str] = set()

_USERINFO = re.compile(
    r"""(?<=://)([^\s/?#'"<>@:]{0,500}:)?[^\s/?#'"<>@]{1,500}(?:@[^\s/?#'"<>@]{0,500}){0,4}@"""
)
_PARAMETER = re.compile(
    r"""([?&;](?:amp;)?(?:[\w.\-]*(?:
        signature|credential|security-token|token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key
        |authorization)[\w.\-]*|sig|auth|key|pwd|code|jwt|policy|key-pair-id)=)
        [^\s&;'"<>)\]}]+""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADER = re.compile(
    r"(\b(?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?)(?:(\w+)\s+)?[^\s'\",}]+", re.IGNORECASE
)
_SCHEME = re.compile(r"\b(Bearer|Basic)(\s+)(?=[^\s'\",}]*[\d=._\-+/A-Z])[^\s'\",}]{8,}")


def remember(*secrets: str) -> None:
    """Note what this process sends as a secret, so that it is hidden where it is echoed."""
    _used.update(secret for secret in secrets if len(secret) >= _SHORTEST)


def without_secrets(text: str) -> str:
    """Return `text` with `***` in place of what looks like a secret; doing it again is harmless."""
    for secret in sorted(_used, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _USERINFO.sub(lambda found: f"{found[1] or ''}{HIDDEN}@", text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
    if "uthorization" in text.casefold():
        text = _HEADER.sub(_header, text)
    return _SCHEME.sub(rf"\1\2{HIDDEN}", text)


def _header(found: re.Match[str]) -> str:
    scheme = f"{found[2]} " if found[2] else ""
    return f"{found[1]}{scheme}{HIDDEN}"
