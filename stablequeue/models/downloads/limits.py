"""How patient and how eager a download is; times in seconds, sizes in bytes."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every number a download obeys.

    Attributes:
        streams: Connections at once, if the server serves ranges. One is polite; more than four
            cost a public host's goodwill.
        least_split: No stream is started for less than this.
        connect_s: To connect.
        stall_s: Without `least_bytes` for so long, a stream counts as stalled. There is no limit
            for the whole.
        least_bytes: See `stall_s`.
        tries: Failures in a row, without a new byte between them, after which a stream gives up.
        most_failures: Failures in all, after which it gives up even though bytes came.
        first_wait_s: Before the second try; doubled for each that follows.
        longest_wait_s: Between two tries.
        patience_s: The longest Retry-After that is waited for here; the task layer waits longer.
        restarts: How often all is fetched anew because the file changed meanwhile.
        margin: Kept free on the disk.
        queued: Bytes received but not yet written; more than that waits for the disk.
        save_every_s: Between two notes of what is there.
        tell_every_s: Between two calls of the progress callback.
        flush: Have the bytes on the disk before the file gets its name, so that a power cut leaves
            no half of it under that name.
    """

    streams: int = 1
    least_split: int = 8 * MEBIBYTE
    connect_s: float = 30.0
    stall_s: float = 120.0
    least_bytes: int = 1024
    tries: int = 5
    most_failures: int = 100
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    patience_s: float = 60.0
    restarts: int = 3
    margin: int = 512 * MEBIBYTE
    queued: int = 16 * MEBIBYTE
    save_every_s: float = 1.0
    tell_every_s: float = 0.5
    flush: bool = True
