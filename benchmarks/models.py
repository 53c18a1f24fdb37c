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
from collections.abc import Callable
from pathlib import Path

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


def hashing(folder: Path, megabytes: int, rounds: int) -> None:
    """Print the speed of hashing and its ratio to the standard library's."""
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
    for work in works.values():
        work()
    taken = {name: [seconds(work)] for name, work in works.items()}
    for _ in range(rounds - 1):
        for name, work in works.items():
            taken[name].append(seconds(work))
    base = statistics.median(taken["hashlib.file_digest"])
    print(f"{size / 1e9:.2f} GB in the page cache, {rounds} rounds in turn")
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"{name:<44}{size / middle / 1e9:8.2f} GB/s{base / middle:8.2f} of file_digest")
    path.unlink()


def scanning(folder: Path, files: int, rounds: int) -> None:
    """Print how long the scans of a library take."""
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
    print(f"{files} files in {files // 100} folders")
    first = seconds(lambda: library.scan(roots, hashing=False))
    print(f"{'first scan, headers only':<44}{first:8.2f} s")
    print(f"{'hashing them all':<44}{seconds(lambda: library.scan(roots)):8.2f} s")
    again = [seconds(lambda: library.scan(roots)) for _ in range(rounds)]
    worst = max(again)
    print(f"{'unchanged, again':<44}{statistics.median(again):8.3f} s   at most {worst:.3f}")
    library.close()
    opened = Library(folder / "home")
    fresh = seconds(lambda: opened.scan(roots))
    print(f"{'unchanged, just opened':<44}{fresh:8.3f} s")
    print(f"{'all records':<44}{seconds(opened.files):8.3f} s")


def main() -> None:
    """Run every measurement and print a table."""
    parser = argparse.ArgumentParser(description="How fast models are hashed and scanned.")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        hashing(Path(name), options.megabytes, options.rounds)
        scanning(Path(name), options.files, options.rounds)


if __name__ == "__main__":
    main()
