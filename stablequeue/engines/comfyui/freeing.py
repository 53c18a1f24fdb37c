"""Having a server give the card's memory back, and seeing it done.

`POST /free` is answered at once and only noted: the server unloads when its worker has ended what
it does and comes by (0.3.64). Who loads a model on the same card before that finds no memory.
"""

import asyncio
import logging
import time

from stablequeue.engines.comfyui.client import ComfyClient

logger = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""A server that has not begun by then has nothing to give back, or does not count it."""
LONGEST_S = 10.0
"""Unloading a large model to slow memory takes seconds; whoever waits for the card waits, too."""
NOTICEABLE = 64 * 2**20
_LOOK_AGAIN_S = (0.02, 0.05, 0.1, 0.2)


async def free_memory(client: ComfyClient) -> None:
    """Ask the server to unload its models, and wait until what it gives back grows no more.

    Raises:
        EngineUnreachable: Retryable.
    """
    before = last = (await client.system_stats()).free_for_others
    await client.free()
    began = time.monotonic()
    looks = iter(_LOOK_AGAIN_S)
    while (passed := time.monotonic() - began) < LONGEST_S:
        await asyncio.sleep(next(looks, _LOOK_AGAIN_S[-1]))
        now = (await client.system_stats()).free_for_others
        freed, grows = now - before >= NOTICEABLE, now - last >= NOTICEABLE
        last = now
        if freed and not grows:
            return
        if not freed and passed >= PATIENCE_S:
            logger.debug("no memory came back in %.0f s", passed)
            return
