"""Faults as data: where and how often they strike."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.sandbox import Fault, FaultKind, Faults


def test_a_fault_strikes_as_often_as_told_after_sparing_some() -> None:
    faults = Faults()
    fault = faults.add("stall", "step 3", after=1, times=2)
    strikes = [faults.take(FaultKind.STALL, "step 3") is fault for _ in range(5)]
    assert strikes == [False, True, True, False, False]
    assert faults.listed() == []
    assert faults.struck == [(FaultKind.STALL, "step 3")] * 2


def test_minus_one_is_always() -> None:
    faults = Faults()
    faults.add("slow", times=-1)
    assert all(faults.take(FaultKind.SLOW, "step 1") for _ in range(100))


@pytest.mark.parametrize(
    ("where", "place", "covered"),
    [
        ("", "anything", True),
        ("POST /prompt", "POST /prompt", True),
        ("POST /prompt", "after POST /prompt", False),
        ("after *", "after POST /prompt", True),
        ("* /history/*", "GET /history/x", True),
        ("step ?", "step 12", False),
    ],
)
def test_where_is_a_pattern(where: str, place: str, covered: bool) -> None:
    assert Fault(kind=FaultKind.DELAY, where=where).covers(place, "comfyui") is covered


def test_a_fault_for_one_protocol_spares_the_other() -> None:
    faults = Faults()
    faults.add("wrong_model", protocol="forge")
    assert not faults.take(FaultKind.WRONG_MODEL, "load", "comfyui")
    assert faults.take(FaultKind.WRONG_MODEL, "load", "forge")


def test_looking_does_not_count() -> None:
    faults = Faults()
    faults.add("die", "load")
    assert faults.may_strike(FaultKind.DIE, "load")
    assert not faults.may_strike(FaultKind.DIE, "save")
    assert faults.take(FaultKind.DIE, "load")
    assert not faults.may_strike(FaultKind.DIE, "load")


def test_clearing_ends_what_holds_because_of_it() -> None:
    faults = Faults()
    stall = faults.add("stall")
    faults.add("slow")
    faults.take(FaultKind.STALL, "step 1")
    assert faults.in_force(stall)
    faults.clear("stall")
    assert not faults.in_force(stall)
    assert [fault.kind for fault in faults.listed()] == [FaultKind.SLOW]
    faults.clear()
    assert faults.listed() == []


@given(
    st.builds(
        Fault,
        kind=st.sampled_from(FaultKind),
        where=st.text(),
        protocol=st.sampled_from(["", "comfyui", "forge"]),
        after=st.integers(0, 9),
        times=st.integers(-1, 9),
        seconds=st.floats(0, 9),
        status=st.integers(400, 599),
        body=st.text(),
    )
)
def test_a_fault_survives_json(fault: Fault) -> None:
    assert Fault.from_json(fault.to_json()) == fault


@pytest.mark.parametrize(
    "told",
    [{}, {"kind": "flood"}, {"kind": "slow", "speed": 1}, {"kind": "slow", "seconds": None}],
)
def test_a_misspelt_fault_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="fault"):
        Fault.from_json(told)
