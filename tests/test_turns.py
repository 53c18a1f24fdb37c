"""Who waits for a turn gets it in order, and nobody waits for ever."""

import asyncio

from stablequeue.turns import Turns


async def test_who_is_impatient_goes_on_without_the_turn() -> None:
    turns = Turns()
    async with turns.one(patience_s=60):
        async with asyncio.timeout(5), turns.one(patience_s=0.01):
            pass
        waiting = asyncio.create_task(turns.one(patience_s=60).__aenter__())
        await asyncio.wait({waiting}, timeout=0.02)
        assert not waiting.done(), "the impatient one gave back what it never had"
    await asyncio.wait_for(waiting, 5)


def test_each_event_loop_has_turns_of_its_own() -> None:
    turns = Turns()

    async def once() -> None:
        async with turns.one(patience_s=60):
            await asyncio.sleep(0)

    for _ in range(2):
        asyncio.run(asyncio.wait_for(once(), 5))
