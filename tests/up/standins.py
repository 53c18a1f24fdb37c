"""Small programs and an API standing in for what `up` starts and talks to."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

from stablequeue.prefect_api import BlockDocument, Pool, PrefectApi
from stablequeue.settings import Settings
from stablequeue.up.children import Children
from stablequeue.up.processes import Child
from stablequeue.worker import WORKER_TYPE
from stablequeue.worker.pools import PoolList

NOTE = """
import json, os, pathlib, sys, time
home = pathlib.Path(os.environ["STABLEQUEUE_HOME"])
def note(what):
    with (home / "notes").open("a") as notes:
        notes.write(what + "\\n")
def until(path):
    while not (home / "run" / path).exists():
        time.sleep(0.01)
"""
SERVER = (
    NOTE
    + """
note("server begins")
until("worker-begins")  # slow as it is, the others begin before it answers
note("server answers")
facts = {"url": "http://127.0.0.1:9/api", "pid": os.getpid()}
(home / "run" / "prefect.part").write_text(json.dumps(facts))
os.replace(home / "run" / "prefect.part", home / "run" / "prefect.json")
time.sleep(60)
"""
)
WORKER = (
    NOTE
    + """
note("worker begins")
(home / "run" / "worker-begins").touch()
until("pools.json")
note("worker serves " + (home / "run" / "pools.json").read_text())
time.sleep(60)
"""
)
DEPLOYMENTS = (
    NOTE
    + """
note("deployments begin " + " ".join(sys.argv[1:]))
until("prefect.json")
note("deployments made")
"""
)
SANDBOX = NOTE + 'note("sandbox begins")\ntime.sleep(60)'


class StandIns(Children):
    """Children that are small programs, each writing down what it does."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.home = settings.home
        self.programs = {
            "prefect": SERVER,
            "worker": WORKER,
            "deployments": DEPLOYMENTS,
            "sandbox": SANDBOX,
        }

    def prefect(self) -> Child:
        return self._stand_in("prefect")

    def worker(self, pools: PoolList) -> Child:
        del pools
        return self._stand_in("worker")

    def sandbox(self, port: int) -> Child:
        del port
        return self._stand_in("sandbox")

    def deployments(self, arguments: Sequence[str] = ()) -> Child:
        return self._stand_in("deployments", arguments)

    def _stand_in(self, name: str, arguments: Sequence[str] = ()) -> Child:
        return Child(
            name=name,
            arguments=["-c", self.programs[name], *arguments],
            environment={**os.environ, "STABLEQUEUE_HOME": str(self.home)},
            log=self.home / "logs" / f"{name}.log",
            stop_within_s=5,
        )


class FakeApi:
    """What `up` asks of Prefect's API: saved servers, pools and how many jobs they have left."""

    url = "http://127.0.0.1:9/api"

    def __init__(self, **servers: dict[str, Any]) -> None:
        self.servers = servers
        self.extra_pools: set[str] = set()
        self.jobs: dict[str, int] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        """Nothing to close."""

    def api(self) -> PrefectApi:
        return cast("PrefectApi", self)

    def healthy(self) -> bool:
        return True

    def block_documents(self, _slug: str, *, secrets: bool = False) -> list[BlockDocument]:
        del secrets
        with self.lock:
            return [
                BlockDocument.from_json({"id": name, "name": name, "data": data})
                for name, data in self.servers.items()
            ]

    def pools(self, *, kind: str = "") -> list[Pool]:
        assert kind == WORKER_TYPE
        names = ["any", *self.servers, *self.extra_pools]
        return [Pool.from_json({"id": name, "name": name, "type": kind}) for name in names]

    def count_runs(self, wanted: dict[str, Any]) -> int:
        (name,) = wanted["deployments"]["name"]["any_"]
        return self.jobs.get(name, 0)


def notes(home: Path) -> list[str]:
    """Return what the stand-ins wrote down."""
    file = home / "notes"
    return file.read_text().splitlines() if file.exists() else []
