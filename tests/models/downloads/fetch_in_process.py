"""A process that downloads one file and may be killed at any moment: `python fetch_in_process.py`.

Reads its orders as JSON from standard input; prints `begun` with the first byte and the SHA-256 at
the end.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from stablequeue.models.downloads import Limits, Progress, download
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.network import Reach
from stablequeue.models.sources.offer import Offer


def main() -> None:
    """Do as ordered."""
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    begun = False

    def tell(_: Progress) -> None:
        nonlocal begun
        if not begun:
            begun = True
            print("begun", flush=True)  # noqa: T201

    done = asyncio.run(
        download(
            Offer.from_json(orders["offer"]),
            Path(orders["target"]),
            Access(source="civitai", reach=Reach(("127.0.0.1", "localhost"), loopback=True)),
            locks=Path(orders["locks"]),
            limits=Limits(
                streams=orders["streams"],
                least_split=65536,
                margin=0,
                save_every_s=0.0,
                tell_every_s=0.0,
                queued=65536,
            ),
            progress=tell,
        )
    )
    print(done.sha256, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
