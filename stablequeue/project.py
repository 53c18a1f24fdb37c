"""The Prefect project that travels with the library: `flows/`, `tasks/`, `blocks/`.

They are import names and never installed at the top of site-packages, where two projects would
overwrite each other. A wheel carries them inside the package; a checkout has them beside it.
"""

import importlib.machinery
import os
import sys
from pathlib import Path

from stablequeue.errors import SettingsError

NAMES = ("flows", "tasks", "blocks")
"""The project's import names."""


def project_dir() -> Path:
    """Return the folder that holds `flows/`, `tasks/` and `blocks/`."""
    package = Path(__file__).resolve().parent
    shipped = package / "project"
    return shipped if shipped.is_dir() else package.parent


def activate() -> Path:
    """Make `flows`, `tasks` and `blocks` importable in this process; return their folder.

    For flows of somebody else's that compose our tasks: call it before importing them. Doing so
    again changes nothing.

    Raises:
        SettingsError: The working folder, the script's folder or an earlier import has a package
            of one of these names; one would hide the other.
    """
    project = project_dir()
    for name in NAMES:
        _refuse_another(name, project)
    entry = str(project)
    if entry not in sys.path:
        sys.path.insert(0, entry)
    return project


def enter() -> dict[str, str]:
    """Pull step of our deployments: run in the project's folder, wherever it is on this host."""
    project = activate()
    os.chdir(project)
    return {"directory": str(project)}


def move_in() -> Path:
    """Make this process one of the project's; return the project's folder.

    For processes of ours that somebody starts from any folder: modules that lie there are not
    meant, whatever their names.

    Raises:
        SettingsError: A module of one of our names was imported already.
    """
    started_in, project = Path.cwd(), project_dir()
    first = Path(sys.path[0] or ".").resolve() if sys.path else project
    if first == started_in.resolve() and first != project:
        del sys.path[0]
    os.chdir(project)
    return activate()


def _refuse_another(name: str, project: Path) -> None:
    folders = dict.fromkeys(Path(entry or ".").resolve() for entry in ("", *sys.path[:1]))
    for folder in folders:
        if folder == project:
            continue
        spec = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
        if spec is not None and spec.origin is not None:
            raise SettingsError(_advice(name, Path(spec.origin)))
        if spec is not None and any((folder / name).glob("*.py")):
            raise SettingsError(_advice(name, folder / name))
    loaded = sys.modules.get(name)
    if loaded is not None:
        places = [Path(place).resolve() for place in getattr(loaded, "__path__", ())]
        if project / name not in places:
            origin = getattr(loaded, "__file__", None) or (places or ["somewhere"])[0]
            raise SettingsError(_advice(name, Path(str(origin))))


def _advice(name: str, other: Path) -> str:
    return (
        f"StableQueue's package {name!r} and {other} have the same name, and one would hide the"
        " other; rename yours, or run from another folder"
    )
