"""What keeps waiting jobs from starting, from what Prefect says of pools and queues."""

from datetime import UTC, datetime

from stablequeue.catalogue import Parked
from stablequeue.client.held import Held
from stablequeue.views import JobView, ViewState


def job(pool: str, tier: str = "normal", why: str = "next in line") -> JobView:
    return JobView(job_id="j", state=ViewState.WAITING, pool=pool, tier=tier, why=why)


def test_a_paused_server_is_said_instead_of_the_place() -> None:
    held = Held(servers=frozenset({"a", "b"}), paused=frozenset({"a"}))
    assert held.noted(job("a")).why == "a is paused"
    assert held.noted(job("b")).why == "next in line"


def test_a_job_of_any_waits_while_any_or_every_server_is_paused() -> None:
    servers = frozenset({"a", "b"})
    assert held_why(Held(servers=servers, paused=frozenset({"any"}))) == "any is paused"
    assert held_why(Held(servers=servers, paused=frozenset({"a"}))) == "next in line"
    assert held_why(Held(servers=servers, paused=servers)) == "every server is paused"
    assert held_why(Held()) == "next in line"


def held_why(held: Held) -> str:
    return held.noted(job("any")).why


def test_a_paused_tier_holds_its_own_jobs_only() -> None:
    held = Held(servers=frozenset({"a"}), tiers=frozenset({("a", "bulk"), ("any", "bulk")}))
    assert held.noted(job("a", "bulk")).why == "tier bulk is paused on a"
    assert held.noted(job("any", "bulk")).why == "tier bulk is paused on any"
    assert held.noted(job("a")).why == "next in line"


def test_a_parked_server_says_why() -> None:
    parked = {"a": Parked(server="a", reason="the disk is full", since=datetime.now(UTC))}
    held = Held(servers=frozenset({"a"}), paused=frozenset({"a"}), parked=parked)
    assert held.noted(job("a")).why == "a is parked: the disk is full"


def test_what_does_not_wait_is_left_alone() -> None:
    running = JobView(job_id="j", state=ViewState.RUNNING, pool="a")
    assert Held(paused=frozenset({"a"})).noted(running) is running
