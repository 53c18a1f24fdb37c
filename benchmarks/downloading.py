"""How fast a model comes: `python -m benchmarks.downloading [--folder DIR] [--gb 1]`.

Two races, each contestant in turn, several rounds, the median counts:

- on loopback, one file with its SHA-256: ours against `curl` and then `sha256sum`;
- behind a proxy that delays every byte by half a round trip each way and lets each connection have
  no more than a window of bytes under way, as TCP over a long line does: ours against `aria2c`
  with as many connections. aria2c is left out, with a note, where it is not installed.

The server is a small one of our own that sends files with sendfile(2) in a process of its own.
Flushing to the disk is left out of the race, since neither curl nor aria2c does it; how long ours
takes with it is a line of its own.
"""

import argparse
import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, load
from stablequeue.models.downloads import Limits, download
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.network import Reach
from stablequeue.models.sources.offer import Offer

MIB = 1024 * 1024
ROUND_TRIP_S = 0.1
WINDOW = 6 * MIB
"""Bytes under way on one connection: Linux' largest receive window as it comes."""

_RANGE = re.compile(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)")


def _serve(listener: socket.socket, path: str) -> None:
    """Serve one file to everybody, with ranges."""
    size = Path(path).stat().st_size

    def connection(peer: socket.socket) -> None:
        # A client may hang up whenever it likes.
        with contextlib.suppress(ConnectionError), peer, Path(path).open("rb") as file:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting = b""
            while True:
                while b"\r\n\r\n" not in waiting:
                    more = peer.recv(65536)
                    if not more:
                        return
                    waiting += more
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                found = _RANGE.search(head + b"\r\n")
                start = int(found[1]) if found else 0
                end = int(found[2]) + 1 if found and found[2] else size
                status = "206 Partial Content" if found else "200 OK"
                extra = f"Content-Range: bytes {start}-{end - 1}/{size}\r\n" if found else ""
                answer = (
                    f"HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n"
                    f'ETag: "1"\r\nAccept-Ranges: bytes\r\n{extra}Content-Length: {end - start}'
                    "\r\n\r\n"
                )
                peer.sendall(answer.encode())
                while start < end:
                    count = min(end - start, MIB)
                    start += os.sendfile(peer.fileno(), file.fileno(), start, count)

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=connection, args=(peer,), daemon=True).start()


def _delay(listener: socket.socket, port: int) -> None:
    """Pass connections on to `port`, every byte late by half a round trip each way."""
    asyncio.run(_delaying(listener, port))


async def _delaying(listener: socket.socket, port: int) -> None:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection costs a round trip before anything can be sent on it.
        await asyncio.sleep(ROUND_TRIP_S)
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
        await asyncio.gather(_late(reader, back), _late(there, writer), return_exceptions=True)

    server = await asyncio.start_server(accepted, sock=listener, limit=MIB)
    await server.serve_forever()


async def _late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction; at most `WINDOW` bytes are under way for a whole round trip."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    under_way, room = 0, asyncio.Event()

    def acknowledged(count: int) -> None:
        nonlocal under_way
        under_way -= count
        room.set()

    async def send() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(due - loop.time(), 0))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()
            loop.call_later(ROUND_TRIP_S / 2, acknowledged, len(data))

    sending = asyncio.ensure_future(send())
    try:
        while not sending.done():
            data = await reader.read(256 * 1024)
            queue.put_nowait((loop.time() + ROUND_TRIP_S / 2, data))
            if not data:
                break
            under_way += len(data)
            while under_way >= WINDOW and not sending.done():
                room.clear()
                await room.wait()
        await sending
    finally:
        sending.cancel()
        writer.close()


@contextmanager
def process_with_port(work: Callable[..., None], *arguments: object) -> Generator[int]:
    """Run `work(listener, *arguments)` in a process of its own; the value is its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=work, args=(listener, *arguments), daemon=True)
    process.start()
    port = int(listener.getsockname()[1])
    listener.close()
    try:
        yield port
    finally:
        process.kill()
        process.join()


@dataclass(frozen=True)
class Race:
    """One file, wherever it is served from."""

    source: Path
    sha256: str
    folder: Path
    rounds: int

    def ours(self, url: str, streams: int, *, flush: bool = False) -> list[float]:
        """Download with StableQueue, in this process, verified."""
        offer = Offer(
            source="direct",
            ident=url,
            url=url,
            name="model.bin.raw",
            size=self.source.stat().st_size,
            sha256=self.sha256,
        )
        access = Access(source="direct", reach=Reach(("127.0.0.1",), loopback=True))

        def work(target: Path) -> None:
            limits = Limits(streams=streams, flush=flush, margin=0)
            asyncio.run(download(offer, target, access, locks=self.folder / "locks", limits=limits))

        return self._timed(work)

    def curl_and_sha256sum(self, url: str) -> list[float]:
        """Download with curl, then hash the file."""

        def work(target: Path) -> None:
            curl, summer = shutil.which("curl"), shutil.which("sha256sum")
            assert curl
            assert summer
            subprocess.run([curl, "-sS", "-o", str(target), url], check=True)
            found = subprocess.run([summer, str(target)], check=True, capture_output=True)
            assert found.stdout.split()[0].decode() == self.sha256

        return self._timed(work)

    def aria2c(self, url: str, streams: int, *, verified: bool) -> list[float]:
        """Download with aria2c, which compares the SHA-256 afterwards if `verified`."""

        def work(target: Path) -> None:
            command = [
                "aria2c",
                "--quiet",
                "--no-conf",
                f"--split={streams}",
                f"--max-connection-per-server={streams}",
                "--min-split-size=1M",
                "--file-allocation=none",
                *([f"--checksum=sha-256={self.sha256}"] if verified else []),
                f"--dir={target.parent}",
                f"--out={target.name}",
                url,
            ]
            subprocess.run(command, check=True)

        return self._timed(work)

    def _timed(self, work: Callable[[Path], None]) -> list[float]:
        taken: list[float] = []
        for number in range(self.rounds):
            target = self.folder / f"fetched-{number}.raw"
            begun = time.perf_counter()
            work(target)
            taken.append(time.perf_counter() - begun)
            assert target.stat().st_size == self.source.stat().st_size
            target.unlink()
        return taken


def prepare(folder: Path, size: int, rounds: int) -> Race:
    """Write the file that is fetched."""
    source = folder / "source.raw"
    digest = hashlib.sha256()
    with source.open("wb") as file:
        for _ in range(0, size, MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return Race(source, digest.hexdigest(), folder, rounds)


def _shown(taken: list[float]) -> str:
    return f"{statistics.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})"


def _ratio(theirs: list[float], own: list[float]) -> str:
    return f"{statistics.median(theirs) / statistics.median(own):.2f}"


def measure(folder: Path, size: int, rounds: int, streams: int) -> Iterator[Figure]:
    """Run both races."""
    race = prepare(folder, size, rounds)
    gb = f"{size / 1e9:.1f} GB"
    with process_with_port(_serve, str(race.source)) as port:
        url = f"http://127.0.0.1:{port}/model.raw"
        note = "curl or sha256sum is not installed"
        curl: list[float] = []
        if shutil.which("curl") and shutil.which("sha256sum"):
            curl = race.curl_and_sha256sum(url)
            yield Figure(f"{gb} on loopback, curl then sha256sum", _shown(curl), load=load())
        own = race.ours(url, 1)
        if curl:
            note = f"{_ratio(curl, own)} times as fast"
        yield Figure(
            f"{gb} on loopback with its SHA-256, ours", _shown(own), "2 times", note, load()
        )
        flushed = race.ours(url, 1, flush=True)
        yield Figure(f"{gb} on loopback, ours, flushed to the disk", _shown(flushed), load=load())
        with process_with_port(_delay, port) as slow:
            url = f"http://127.0.0.1:{slow}/model.raw"
            own = race.ours(url, streams)
            name = f"{gb} over {ROUND_TRIP_S * 1000:.0f} ms, {streams} streams"
            note = "aria2c is not installed"
            if shutil.which("aria2c"):
                theirs = race.aria2c(url, streams, verified=True)
                yield Figure(f"{name}, aria2c with its SHA-256", _shown(theirs), load=load())
                bare = race.aria2c(url, streams, verified=False)
                yield Figure(f"{name}, aria2c unverified", _shown(bare), load=load())
                note = f"{_ratio(theirs, own)} and {_ratio(bare, own)} times as fast"
            yield Figure(f"{name}, ours with its SHA-256", _shown(own), "0.9 times", note, load())


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description="How fast a model is downloaded.")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--gb", type=float, default=1.0, help="size of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=4)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="stablequeue-downloading-"))
    size = int(options.gb * 1e9) // MIB * MIB
    try:
        for figure in measure(folder, size, options.rounds, options.streams):
            goal = f", goal {figure.goal}" if figure.goal else ""
            note = f" ({figure.note})" if figure.note else ""
            print(f"{figure.name}: {figure.value}{goal}{note} (load {figure.load})", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
