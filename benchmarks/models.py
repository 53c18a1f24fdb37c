"""How fast model files are hashed and a library is scanned: `python -m benchmarks.models`.

Hashing is compared, in the same run and on the same file in the page cache, with
`hashlib.file_digest`. The library is of sparse files with real headers.
"""

import argparse
import hashlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.report import Figure, load
from stablequeue.models.folders import Root
from stablequeue.models.identities import identify, sha256_of
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from tests.models.making import of_shapes

PIECE = 64 * 1024 * 1024
LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def file_digest(path: Path) -> str:
    """Hash a file by the standard library."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashing(folder: Path, megabytes: int, rounds: int) -> Iterator[Figure]:
    """Measure hashing against the standard library's."""
    path = folder / "large.bin"
    piece = os.urandom(PIECE)
    with path.open("wb") as stream:
        for _ in range(megabytes * 1_000_000 // PIECE + 1):
            stream.write(piece)
    size = path.stat().st_size
    works: dict[str, Callable[[], object]] = {
        "hashlib.file_digest": lambda: file_digest(path),
        "SHA-256 alone": lambda: sha256_of(path),
        "all identities, one pass": lambda: identify(path),
    }
    goals = {"SHA-256 alone": "0.9 of it", "all identities, one pass": "0.45 of it"}
    for work in works.values():
        work()
    taken = {name: [seconds(work)] for name, work in works.items()}
    for _ in range(rounds - 1):
        for name, work in works.items():
            taken[name].append(seconds(work))
    base = statistics.median(taken["hashlib.file_digest"])
    for name, times in taken.items():
        middle = statistics.median(times)
        goal = goals.get(name, "")
        yield Figure(
            f"hash {size / 1e9:.1f} GB: {name}",
            f"{size / middle / 1e9:.2f} GB/s",
            goal,
            f"{base / middle:.2f} of hashlib.file_digest" if goal else "in the page cache",
            load(),
        )
    path.unlink()


def scanning(folder: Path, files: int, rounds: int) -> Iterator[Figure]:
    """Measure the scans of a library."""
    models = folder / "models"
    for number in range(files):
        of_shapes(
            models / f"{number // 100:03d}" / f"model-{number:05d}.safetensors",
            {LAYER: [4, 2048]},
            {"ss_output_name": f"model {number}"},
            fill=str(number).encode(),
        )
    roots = [Root(models, ModelType.LORA, "benchmark")]
    library = Library(folder / "home")
    name = f"library of {files:,} files"
    how = f"in {files // 100} folders"
    first = seconds(lambda: library.scan(roots, hashing=False))
    yield Figure(f"{name}: first scan", f"{first:.2f} s", "", f"{how}, headers only", load())
    again = [seconds(lambda: library.scan(roots, hashing=False)) for _ in range(rounds)]
    shown = f"{statistics.median(again):.3f} s (at most {max(again):.3f})"
    yield Figure(f"{name}: scan, unchanged", shown, "0.5 s", how, load())
    read = [seconds(library.files) for _ in range(rounds)]
    yield Figure(f"{name}: read all records", f"{statistics.median(read):.3f} s", "", how, load())
    hashed = seconds(lambda: library.scan(roots))
    yield Figure(f"{name}: hash them all", f"{hashed:.2f} s", "", "small files", load())
    library.close()
    opened = Library(folder / "home")
    fresh = seconds(lambda: opened.scan(roots))
    yield Figure(f"{name}: scan, unchanged, just opened", f"{fresh:.3f} s", "", how, load())
    opened.close()


def measure(folder: Path, megabytes: int, files: int, rounds: int) -> Iterator[Figure]:
    """Measure hashing, then scanning."""
    yield from hashing(folder, megabytes, rounds)
    yield from scanning(folder, files, rounds)


def main() -> None:
    """Run every measurement and print a line for each."""
    parser = argparse.ArgumentParser(description="How fast models are hashed and scanned.")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for one in measure(folder, options.megabytes, options.files, options.rounds):
            goal = f", goal {one.goal}" if one.goal else ""
            print(f"{one.name}: {one.value}{goal} ({one.note}; load {one.load})", flush=True)


if __name__ == "__main__":
    main()
