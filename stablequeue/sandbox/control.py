"""`/stablequeue/*`: steering a sandbox from another process. Only there when started with control.

| request | answer |
|---|---|
| `GET /stablequeue/state` | boot id, card, strikes, journal, and each protocol's report |
| `GET /stablequeue/card[?from=N]` | the card alone; of its generations those from number N on |
| `GET /stablequeue/faults` | the faults that can still strike |
| `POST /stablequeue/faults` | arm one fault or a list of them (fields of `Fault`) |
| `DELETE /stablequeue/faults[?kind=]` | disarm all, or those of one kind |
| `POST /stablequeue/die` | the server is gone, as after SIGKILL |
"""

import json
from dataclasses import asdict
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from stablequeue.sandbox.card import GraphicsCard
from stablequeue.sandbox.faults import Fault, FaultKind
from stablequeue.sandbox.state import SandboxState


def snapshot(state: SandboxState) -> dict[str, Any]:
    """Return what a test may want to know, as plain JSON."""
    return {
        "boot_id": state.boot_id,
        "card": card_snapshot(state.card),
        "struck": state.faults.struck,
        "journal": state.journal,
        **{name: report() for name, report in state.reports.items()},
    }


def card_snapshot(card: GraphicsCard, start: int = 0) -> dict[str, Any]:
    """Return a card as plain JSON, its generations from number `start` on."""
    return {
        "name": card.name,
        "memory_mb": card.memory_mb,
        "free_mb": card.free_mb,
        "running": card.running,
        "most_at_once": card.most_at_once,
        "generations": [asdict(entry) for entry in card.generations[start:]],
        "swaps": card.swaps,
        "refused": card.refused,
    }


def build(state: SandboxState) -> list[BaseRoute]:  # noqa: C901 - one small function a route
    """Return the control routes of `state`."""

    async def read_state(_request: Request) -> Response:
        return JSONResponse(snapshot(state))

    async def read_card(request: Request) -> Response:
        start = request.query_params.get("from", "0")
        if not start.isdecimal():
            return JSONResponse({"error": f"from is no number: {start!r}"}, 422)
        return JSONResponse(card_snapshot(state.card, int(start)))

    async def read_faults(_request: Request) -> Response:
        return JSONResponse([fault.to_json() for fault in state.faults.listed()])

    async def add_faults(request: Request) -> Response:
        try:
            told: Any = json.loads(await request.body())
            many = cast("list[Any]", told if isinstance(told, list) else [told])
            faults = [Fault.from_json(one) for one in many]
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 422)
        for fault in faults:
            state.faults.arm(fault)
        return JSONResponse([fault.to_json() for fault in faults])

    async def clear_faults(request: Request) -> Response:
        kind = request.query_params.get("kind")
        if kind is not None and kind not in set(FaultKind):
            return JSONResponse({"error": f"there is no kind of fault {kind!r}"}, 422)
        state.faults.clear(kind)
        return JSONResponse([])

    async def die(_request: Request) -> Response:
        await state.die()
        return Response()

    return [
        Route("/stablequeue/state", read_state),
        Route("/stablequeue/card", read_card),
        Route("/stablequeue/faults", read_faults, methods=["GET"]),
        Route("/stablequeue/faults", add_faults, methods=["POST"]),
        Route("/stablequeue/faults", clear_faults, methods=["DELETE"]),
        Route("/stablequeue/die", die, methods=["POST"]),
    ]
