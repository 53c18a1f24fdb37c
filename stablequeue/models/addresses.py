"""Addresses of Civitai, Hugging Face and of files, taken apart. Pure.

Sources: Civitai's routes (2026-08), `huggingface.co`'s own links (`resolve`, `blob`, `raw`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

CIVITAI_HOSTS = frozenset(
    {
        "civitai.com",
        "www.civitai.com",
        "civitai.red",
        "www.civitai.red",
        "civitai.green",
        "www.civitai.green",
        "civarchive.com",
        "www.civarchive.com",
    }
)
"""Hosts whose pages name Civitai's ids; the last is an archive that keeps them."""

HUGGING_FACE_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})

_WISHES = ("type", "format", "size", "fp", "quantType")
_DIGITS = re.compile("[0-9]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OWNER_OR_REPO = re.compile(r"[\w][\w.-]{0,95}")
_REVISION = re.compile(r"[\w][\w./-]{0,199}")
_LONGEST_PATH = 1_000
_MOST_PARAMETERS = 100
_FILE_KINDS = {"resolve", "blob", "raw"}


class WrongAddress(ValueError):
    """An address that leads to no model; the message says why."""


@dataclass(frozen=True, slots=True)
class CivitaiIds:
    """Ids as texts, "" where the address has none."""

    model: str = ""
    version: str = ""
    file: str = ""
    image: str = ""
    wish: tuple[tuple[str, str], ...] = ()


def split(text: str) -> SplitResult | None:
    """Return the parts of an address, or None if the text is none.

    The scheme may be missing before a host we know.

    Raises:
        WrongAddress: It is an address and cannot be used.
    """
    known = CIVITAI_HOSTS | HUGGING_FACE_HOSTS
    if not _SCHEME.match(text):
        host, slash, _ = text.partition("/")
        if not slash or host.casefold() not in known:
            return None
        text = f"https://{text}"
    try:
        address = urlsplit(text)
        host, _ = (address.hostname or "").rstrip("."), address.port
    except ValueError:
        raise WrongAddress("this address cannot be read") from None
    scheme = address.scheme.casefold()
    if scheme not in {"http", "https"}:
        raise WrongAddress(f"{scheme[:20]}:// is not fetched; give an https:// address")
    if not host:
        raise WrongAddress("this address has no host")
    if "@" in address.netloc:
        raise WrongAddress(
            "an address must not carry a user or password; save the token in an account instead"
        )
    return address


def is_civitai(address: SplitResult) -> bool:
    """Say whether an address is of Civitai's pages."""
    return _host(address) in CIVITAI_HOSTS


def is_hugging_face(address: SplitResult) -> bool:
    """Say whether an address is of Hugging Face's pages."""
    return _host(address) in HUGGING_FACE_HOSTS


def civitai(address: SplitResult) -> CivitaiIds:
    """Return the ids an address of Civitai names; a token in it is dropped.

    Raises:
        WrongAddress: It is a page of something else.
    """
    try:
        asked = dict(parse_qsl(address.query, max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        raise WrongAddress("this address has too many parameters") from None
    match [part.casefold() for part in address.path.split("/") if part]:
        case ["models", model, *_] | ["api", "v1", "models", model] if _DIGITS.fullmatch(model):
            return CivitaiIds(model=model, version=asked.get("modelVersionId", ""))
        case ["model-versions", version, *_] if _DIGITS.fullmatch(version):
            return CivitaiIds(version=version)
        case ["api", "v1", "model-versions", version] if _DIGITS.fullmatch(version):
            return CivitaiIds(version=version)
        case ["api", "download", "models", version] if _DIGITS.fullmatch(version):
            wish = tuple((key, asked[key]) for key in _WISHES if key in asked)
            return CivitaiIds(version=version, file=asked.get("fileId", ""), wish=wish)
        case ["images", image, *_] if _DIGITS.fullmatch(image):
            return CivitaiIds(image=image)
        case ["posts", *_]:
            raise WrongAddress("a post has many pictures; give the address of one of them")
        case _:
            raise WrongAddress(
                "this page of Civitai is no model, version or picture;"
                " give an address like https://civitai.com/models/ID?modelVersionId=ID"
            )


def query(wish: Iterable[tuple[str, str]], *, file_id: int) -> str:
    """Return the query of a download address, with its question mark."""
    pairs = [("fileId", str(file_id))] if file_id else []
    return "?" + urlencode([*pairs, *wish])


def hugging_face(address: SplitResult) -> tuple[str, str, str]:
    """Return repository, path and revision of an address of Hugging Face.

    Raises:
        WrongAddress: It names no file of a model repository.
    """
    parts = [part for part in address.path.split("/") if part]
    if len(parts) < 5 or parts[2] not in _FILE_KINDS:  # noqa: PLR2004
        raise WrongAddress(
            "this page of Hugging Face is no file; open the file's page in the repository"
            " and give its address"
        )
    where = "/".join([parts[0], parts[1], *map(unquote, parts[4:])])
    return repository_file(where, unquote(parts[3]))


def repository_file(where: str, revision: str) -> tuple[str, str, str]:
    """Return repository, path and revision of `owner/repo/path/to/file`, checked.

    Raises:
        WrongAddress: A part is missing, or would leave the repository.
    """
    parts = where.split("/")
    if len(parts) < 3:  # noqa: PLR2004
        raise WrongAddress("a file on Hugging Face is written hf:owner/repo/file@revision")
    owner, repo, *path = parts
    if not _OWNER_OR_REPO.fullmatch(owner) or not _OWNER_OR_REPO.fullmatch(repo):
        raise WrongAddress("this is no name of a repository on Hugging Face")
    if any(part in {"", ".", ".."} or not part.isprintable() for part in path) or any(
        mark in where for mark in "\\?#"
    ):
        raise WrongAddress("this is no path of a file in a repository")
    if len(where) > _LONGEST_PATH:
        raise WrongAddress("this path is too long")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise WrongAddress("a revision is a branch, a tag or a commit")
    return f"{owner}/{repo}", "/".join(path), revision


def direct(address: SplitResult) -> str:
    """Return the address of a file anywhere, without its fragment.

    Raises:
        WrongAddress: It is not https.
    """
    if address.scheme.casefold() != "https":
        raise WrongAddress("models are fetched over https:// only")
    return address._replace(fragment="").geturl()


def _host(address: SplitResult) -> str:
    return (address.hostname or "").rstrip(".").casefold()
