"""Whether everything was made already: asked without importing Prefect, which takes seconds."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import stablequeue
from deployments.sandbox import moved
from stablequeue.errors import NotFound
from stablequeue.prefect_api import PrefectApi
from stablequeue.servers import ANY, DOWNLOADS, ServerConfig
from stablequeue.worker import WORKER_TYPE

VARIABLE = "stablequeue_setup"
FLOW = "generate"
_FOLDERS = ("flows", "blocks", "deployments")
_SHAPES = ("request.py", "servers.py", "forms.py", "worker/configuration.py", "storage/base.py")


def fingerprint(servers: Sequence[ServerConfig], project: Path, *, limit: int) -> str:
    """Return a hash of all that pools, deployments and block types are made from."""
    told = [(server.alias, server.type, server.base_url) for server in servers]
    digest = hashlib.sha256(json.dumps([told, limit, version("prefect")]).encode())
    library = Path(stablequeue.__file__).parent
    files = [library / name for name in _SHAPES]
    for folder in _FOLDERS:
        files += sorted((project / folder).glob("*.py"))
    for file in files:
        digest.update(file.read_bytes())
    plan = project / "prefect.yaml"
    digest.update(plan.read_bytes() if plan.exists() else b"")
    return digest.hexdigest()


def is_made(
    api: PrefectApi, servers: Sequence[ServerConfig], mark: str, *, sandbox_url: str = ""
) -> bool:
    """Whether `mark` was left by the last run, and nothing was taken away since.

    Args:
        api: Prefect's API.
        servers: The saved ones.
        mark: What `fingerprint` says of them now.
        sandbox_url: Where the built-in server has to be saved; empty: anywhere.
    """
    if sandbox_url and (not servers or moved(servers, sandbox_url)):
        return False
    try:
        if api.variable(VARIABLE) != mark:
            return False
    except NotFound:
        return False
    needed = {ANY, *(server.alias for server in servers)}
    pools = {pool.name for pool in api.pools(kind=WORKER_TYPE)}
    deployments = {found.name for found in api.deployments(flow=FLOW)}
    return {*needed, DOWNLOADS} <= pools and needed <= deployments


def remember(api: PrefectApi, mark: str) -> None:
    """Leave the mark for `is_made`."""
    api.set_variable(VARIABLE, mark)
