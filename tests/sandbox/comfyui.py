"""A small blocking client of ComfyUI's protocol for the tests of this folder."""

from typing import Any

import httpx

from stablequeue.sandbox import Sandbox
from tests.sandbox.graphs import Graph
from tests.support.waiting import wait_until

JSON = dict[str, Any]


class Client(httpx.Client):
    """Talks to one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        # no TLS here, and loading certificates takes longer than most tests
        super().__init__(base_url=sandbox.url, timeout=20, verify=False)

    def queue(self, graph: Graph, **more: Any) -> str:
        """Queue a workflow; return the prompt id."""
        response = self.post("/prompt", json={"prompt": graph, **more})
        assert response.status_code == 200, response.text
        return response.json()["prompt_id"]

    def entry(self, prompt_id: str) -> JSON:
        """Return what the history has of a prompt; empty while there is nothing."""
        return self.get(f"/history/{prompt_id}").json().get(prompt_id, {})

    def ended(self, prompt_id: str) -> JSON:
        """Wait for a prompt's end; return its history entry."""
        return wait_until(lambda: self.entry(prompt_id), every_s=0.01, why=f"{prompt_id} ends")

    def run(self, graph: Graph, **more: Any) -> JSON:
        """Queue a workflow and wait for its end."""
        return self.ended(self.queue(graph, **more))

    def running(self) -> list[str]:
        """Return the ids of running prompts."""
        return [item[1] for item in self.get("/queue").json()["queue_running"]]

    def waiting(self) -> list[str]:
        """Return the ids of waiting prompts, in no order."""
        return [item[1] for item in self.get("/queue").json()["queue_pending"]]

    def file(self, entry: JSON, node: str = "9", index: int = 0) -> httpx.Response:
        """Ask for a picture of a finished prompt."""
        return self.get("/view", params=entry["outputs"][node]["images"][index])


def how_it_ended(entry: JSON) -> str:
    """Return the last message of a history entry, e.g. `execution_success`."""
    return entry["status"]["messages"][-1][0]
