"""How model files reach a server: what its saved configuration says of it.

A server lists files below folders of its own, with its own separator. What it lists for a file of
the library is found by the end of the path it has there; nothing is guessed.
"""

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from stablequeue.errors import NotDelivered
from stablequeue.model_names import TITLE_HASH, path, without_suffix
from stablequeue.models.folders import Root
from stablequeue.models.kinds import ModelType
from stablequeue.servers import ServerConfig


def path_there(server: ServerConfig, file: Path) -> str:
    """Return the path a file of the library has for a server; empty: it does not reach it.

    Of several folders that are mapped, the innermost counts.
    """
    if server.models_from in {"same", "worker"}:
        return str(file)
    if server.models_from == "none":
        return ""
    fitting: list[tuple[int, str]] = []
    for entry in server.model_paths:
        local, _, remote = entry.partition("=")
        folder, remote = Path(local.strip()).expanduser(), remote.strip()
        if not file.is_relative_to(folder):
            continue
        separator = "\\" if "\\" in remote or remote[1:2] == ":" else "/"
        parts = [remote.rstrip("/\\"), *file.relative_to(folder).parts]
        fitting.append((len(folder.parts), separator.join(parts)))
    return max(fitting, default=(0, ""))[1]


def host_of(server: ServerConfig) -> str:
    """Return the host whose own folders a server reads: this one, if its worker runs beside it.

    Empty: all hosts share the folders.
    """
    return socket.gethostname() if server.models_from == "worker" else ""


def roots_for(server: ServerConfig, roots: Iterable[Root], kind: ModelType) -> list[Root]:
    """Return the folders of a type whose files reach a server, the first for new files first."""
    return [one for one in roots if one.kind is kind and path_there(server, one.path)]


def lists_library(files: Iterable[Path], listed: Iterable[str]) -> bool:
    """Whether what a server lists is the library: then it reads the same folders.

    Args:
        files: Of the library.
        listed: The names of model files as the server tells them.

    A single name proves little, since popular files have the same name everywhere: at least half of
    all that is listed has to be in the library.
    """
    there: dict[str, list[str]] = {}
    for file in files:
        whole = path(str(file))
        for key in (whole, without_suffix(whole)):
            there.setdefault(key.rpartition("/")[2], []).append(f"/{key}")
    names = {path(TITLE_HASH.sub("", name)) for name in listed} - {""}
    known = [
        name
        for name in names
        if any(one.endswith(f"/{name}") for one in there.get(name.rpartition("/")[2], ()))
    ]
    return bool(known) and 2 * len(known) >= len(names)


def undelivered(server: ServerConfig, what: str, file: Path | None = None) -> NotDelivered:
    """Return the refusal for a model that is here, or could be had, and does not reach a server.

    Args:
        server: The server.
        what: The model, as the request names it.
        file: Where it is; None: it is not here yet.
    """
    change = f"stablequeue servers add {server.alias} --update"
    where = f"{file} is in the library" if file else f"{what} could be fetched"
    if server.models_from == "none":
        return NotDelivered(
            server.alias,
            f"{where}, but nothing says how model files reach this server; if it reads the"
            f" library's folders, say so with: {change} --models-from same (or mapped, worker)",
        )
    if server.models_from == "mapped":
        detail = f"{where}, but in no folder this server sees; map it with: {change} --model-path"
        return NotDelivered(server.alias, f"{detail} LOCAL=REMOTE")
    return NotDelivered(
        server.alias,
        f"{where}, but no folder of the library is for this type of model; name one in the"
        " settings, models.folders",
    )


def listed_as(there: str, listed: Sequence[str]) -> str:
    """Return the name a server lists for the file at this path of its; empty: none, or unclear.

    Args:
        there: From `path_there`.
        listed: Names as the server tells them: below its own folder, or without folder and suffix.
    """
    whole = path(there)
    found: dict[int, list[str]] = {}
    for name in listed:
        for told in {name, TITLE_HASH.sub("", name)}:
            key = path(told)
            if not key:
                continue
            for candidate in (whole, without_suffix(whole)):
                if f"/{candidate}".endswith(f"/{key}"):
                    found.setdefault(key.count("/"), []).append(name)
                    break
    best = list(dict.fromkeys(found[max(found)])) if found else []
    return best[0] if len(best) == 1 else ""
