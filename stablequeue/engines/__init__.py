"""Engines: one module a protocol, found through the entry point group `stablequeue.engines`."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from stablequeue.engines.base import Engine
from stablequeue.errors import SettingsError
from stablequeue.servers import ServerConfig

GROUP = "stablequeue.engines"


def engine_types() -> list[str]:
    """Return the names of the installed engines, sorted."""
    return sorted(_installed())


def open_engine(server: ServerConfig) -> Engine:
    """Return an unopened session with `server`; use it with `async with`.

    Raises:
        SettingsError: No installed engine speaks the server's protocol.
    """
    point = _installed().get(server.type)
    if point is not None:
        engine: Engine = point.load()(server)
        return engine
    kinds = ", ".join(engine_types()) or "none; reinstall StableQueue"
    message = f"server {server.alias}: there is no engine {server.type!r}. Installed: {kinds}."
    raise SettingsError(message)


@cache
def _installed() -> dict[str, EntryPoint]:
    """Return the installed engines by name; looking through all packages takes 10 ms."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point)
    return found
