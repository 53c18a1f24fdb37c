"""Who holds a card: one server at a time, in the order of asking, nobody beside what is unknown."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import CatalogueBusy, QueueError
from stablequeue.worker import cards as cards_module
from stablequeue.worker.cards import Ask, Cards


class Bench:
    """Cards whose settling and freeing a test steers."""

    def __init__(self) -> None:
        self.granted: list[str] = []
        self.settled: list[tuple[str, str, str]] = []
        self.freed: list[str] = []
        self.handed: list[tuple[str, str]] = []
        self.may_settle = asyncio.Event()
        self.may_settle.set()
        self.faults: list[QueueError] = []
        self.others: list[str] = []
        self.cards = Cards(
            self._settle, self._free, self._handed_over, lambda _card, _server: self.others
        )

    async def _settle(self, card: str, server: str, job: str) -> None:
        await self.may_settle.wait()
        if self.faults:
            raise self.faults.pop()
        self.settled.append((card, server, job))

    async def _free(self, server: str) -> None:
        self.freed.append(server)

    def _handed_over(self, old: str, new: str, seconds: float) -> None:
        assert seconds >= 0
        self.handed.append((old, new))

    async def ask(self, run: str, server: str, *, card: str = "c", depth: int = 1) -> None:
        def grant() -> None:
            self.granted.append(run)

        self.cards.ask(
            card, Ask(run=run, job=f"job-{run}", server=server, depth=depth, grant=grant)
        )
        await turns()


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_free_card_is_granted_once_what_may_be_left_there_is_settled() -> None:
    bench = Bench()
    bench.may_settle.clear()
    await bench.ask("a", "s1")
    assert bench.granted == []
    bench.may_settle.set()
    await turns()
    assert bench.granted == ["a"]
    assert bench.settled == [("c", "s1", "job-a")]


async def test_the_next_comes_when_the_holder_lets_go_and_nothing_is_settled_again() -> None:
    bench = Bench()
    await bench.ask("a", "s1")
    await bench.ask("b", "s1")
    await bench.ask("c", "s1")
    assert bench.granted == ["a"]
    bench.cards.release("a")
    assert bench.granted == ["a", "b"]
    bench.cards.release("b")
    assert bench.granted == ["a", "b", "c"]
    assert len(bench.settled) == 1
    assert bench.freed == []


async def test_a_server_that_queues_gets_the_next_run_while_the_last_generates() -> None:
    bench = Bench()
    await bench.ask("a", "s1", depth=2)
    await bench.ask("b", "s1", depth=2)
    await bench.ask("c", "s1", depth=2)
    assert bench.granted == ["a"]
    bench.cards.nearly_done("a")
    assert bench.granted == ["a", "b"]
    bench.cards.nearly_done("b")
    assert bench.granted == ["a", "b"], "two are there already"
    bench.cards.release("a")
    assert bench.granted == ["a", "b", "c"]


async def test_two_servers_never_hold_one_card_at_once_and_the_first_frees_its_memory() -> None:
    bench = Bench()
    await bench.ask("a", "s1", depth=2)
    bench.cards.nearly_done("a")
    await bench.ask("b", "s2")
    assert bench.granted == ["a"]
    bench.cards.release("a")
    await turns()
    assert bench.granted == ["a", "b"]
    assert bench.freed == ["s1"]
    assert bench.handed == [("s1", "s2")]


async def test_nobody_of_the_same_server_passes_one_of_another_that_waits() -> None:
    bench = Bench()
    await bench.ask("a", "s1", depth=2)
    bench.cards.nearly_done("a")
    await bench.ask("b", "s2")
    await bench.ask("c", "s1", depth=2)
    assert bench.granted == ["a"]
    bench.cards.release("a")
    await turns()
    assert bench.granted == ["a", "b"]


async def test_what_a_dead_holder_left_is_settled_before_anybody_else_generates() -> None:
    bench = Bench()
    await bench.ask("a", "s1")
    await bench.ask("b", "s1")
    bench.may_settle.clear()
    bench.cards.release("a", settled=False)
    await turns()
    assert bench.granted == ["a"]
    bench.may_settle.set()
    await turns()
    assert bench.granted == ["a", "b"]
    assert bench.settled[-1] == ("c", "s1", "job-b")


async def test_one_that_waits_no_more_is_passed_over_also_while_its_card_is_prepared() -> None:
    bench = Bench()
    bench.may_settle.clear()
    await bench.ask("a", "s1")
    await bench.ask("b", "s1")
    bench.cards.release("a")
    bench.may_settle.set()
    await turns()
    assert bench.granted == ["b"]


async def test_letting_go_twice_or_of_nothing_changes_nothing() -> None:
    bench = Bench()
    await bench.ask("a", "s1")
    bench.cards.release("a")
    bench.cards.release("a")
    bench.cards.nearly_done("a")
    bench.cards.release("nobody")
    await bench.ask("b", "s1")
    assert bench.granted == ["a", "b"]
    assert bench.cards.held_since("b") > 0
    assert bench.cards.held_since("a") == 0


async def test_cards_do_not_wait_for_each_other() -> None:
    bench = Bench()
    await bench.ask("a", "s1", card="one")
    await bench.ask("b", "s2", card="two")
    assert bench.granted == ["a", "b"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "tail", "release", "die"]), st.integers(0, 5)),
        max_size=40,
    )
)
def test_whatever_happens_one_server_holds_the_card_and_no_more_than_it_takes(
    steps: list[tuple[str, int]],
) -> None:
    async def play() -> None:
        bench = Bench()
        server_of = {run: f"s{run % 2}" for run in range(6)}
        asked, held = set[int](), set[int]()
        for step, run in steps:
            name = str(run)
            if step == "ask" and run not in asked:
                asked.add(run)
                await bench.ask(name, server_of[run], depth=2)
            elif step == "tail":
                bench.cards.nearly_done(name)
            else:
                bench.cards.release(name, settled=step == "release")
                asked.discard(run)
            await turns()
            held = {one for one in range(6) if bench.cards.held_since(str(one))}
            assert len({server_of[one] for one in held}) <= 1
            assert len(held) <= 2
            assert held <= asked
        assert held or not asked, "somebody waits and nobody holds it"

    asyncio.run(play())


async def test_at_first_every_other_server_of_the_card_is_asked_to_free_its_memory() -> None:
    bench = Bench()
    bench.others = ["s2", "s3"]
    await bench.ask("a", "s1")
    assert bench.granted == ["a"]
    assert bench.freed == ["s2", "s3"]
    bench.cards.release("a")
    await bench.ask("b", "s1")
    assert bench.freed == ["s2", "s3"]


async def test_a_card_is_settled_again_when_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "_AGAIN_S", 0.0)
    bench = Bench()
    bench.faults = [CatalogueBusy("it is busy")]
    await bench.ask("a", "s1")
    await turns()
    assert bench.granted == ["a"]
    assert bench.settled == [("c", "s1", "job-a")]


async def test_what_becomes_unsettled_while_a_card_is_settled_is_settled_too() -> None:
    bench = Bench()
    bench.may_settle.clear()
    await bench.ask("a", "s1")
    bench.cards.unsettled("c")
    bench.may_settle.set()
    await turns()
    assert bench.granted == ["a"]
    assert len(bench.settled) == 2
