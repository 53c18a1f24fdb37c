"""Identities that are ours: job ids, remote keys, derived seeds, run names."""

import hashlib
import json
import os
import re
import time
from uuid import UUID, uuid5

_NAMESPACE = UUID("6f1c3f0e-5d0b-5c8f-9f0e-0a4c7a2d9b11")
_SEED_RANGE = 2**32
_NAME_WORDS = 8


def new_job_id() -> str:
    """Return a new UUIDv7 as text: unique, and sorted by the time it was made.

    Layout of RFC 9562: 48 bits of milliseconds since 1970, then version, variant and random bits.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def keyed_job_id(key: str, content: str, number: int = 0) -> str:
    """Return the job id that a request of a submission always has, so that it is added once.

    Args:
        key: Names the submission.
        content: The request, in one spelling, or its own key.
        number: How many equal requests come before it.
    """
    return str(uuid5(_NAMESPACE, json.dumps(["submission", key, content, number])))


def remote_key(job_id: str, index: int, attempt: int) -> UUID:
    """Return the id one attempt at one picture has on its server.

    The same three values always give the same id; another attempt gives another, because servers
    confuse a reused id with the earlier run (reference: ComfyUI scenario 15, Forge
    `duplicate_task_id`). Lowercase and hyphenated as text, which newer ComfyUI insists on.
    """
    return uuid5(_NAMESPACE, f"{job_id}/{index}/{attempt}")


def derived_seed(job_id: str) -> int:
    """Return the seed a request with `seed: -1` gets: 0 to 2**32 - 1, fixed by the job id."""
    digest = hashlib.sha256(f"seed/{job_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEED_RANGE


def short_id(job_id: str) -> str:
    """Return the last 8 hex digits, which are random (a UUIDv7 begins with the time)."""
    return job_id.replace("-", "")[-8:]


def run_name(prompt: str, mode: str, server: str, job_id: str) -> str:
    """Return the readable name of a flow run, the same for every way in."""
    words = re.findall(r"[^\s,()\[\]<>|:]+", prompt)[:_NAME_WORDS]
    title = " ".join(words)[:60] or mode
    return f"{title} · {server} · {short_id(job_id)}"
