"""How long storing a picture takes: `python benchmarks/storing.py [--folder DIR]`.

Measures what the pipeline does with one 1024 x 1024 PNG: look at it, hash it, make its thumbnail,
put it into a folder store (copied, hashed again, flushed to the disk). The picture is a smooth
scene with film grain, about as large as a generated one (1 to 2 MB); pure noise is the worst case.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from stablequeue.ids import new_job_id
from stablequeue.storage import FolderStoreConfig, file_sha256, open_store, readable_key, sniff
from stablequeue.storage.decoding import load_picture
from stablequeue.storage.metadata import read_metadata
from stablequeue.storage.reencoding import reencode
from stablequeue.storage.thumbnails import make_thumbnail

SIDE = 1024
INFOTEXT = "a cat on a roof\nSteps: 20, Sampler: Euler, Seed: 7, Size: 1024x1024"


def paint(path: Path) -> None:
    """Write the picture that is stored."""
    gradient = Image.radial_gradient("L").resize((SIDE, SIDE))
    grain = Image.effect_noise((SIDE, SIDE), 8)
    bands = [Image.blend(gradient.rotate(angle), grain, 0.25) for angle in (0, 40, 170)]
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", INFOTEXT)
    Image.merge("RGB", bands).save(path, pnginfo=info)


def timed(rounds: int, work: Callable[[int], object]) -> list[float]:
    """Return the milliseconds of each round; the first, which loads code, is left out."""
    taken: list[float] = []
    for number in range(rounds + 1):
        begin = time.perf_counter()
        work(number)
        taken.append((time.perf_counter() - begin) * 1000)
    return sorted(taken[1:])


def report(name: str, taken: list[float]) -> None:
    """Print one line: median and 95th percentile."""
    p95 = taken[min(len(taken) - 1, int(len(taken) * 0.95))]
    print(f"{name:<44}{statistics.median(taken):8.1f} ms{p95:8.1f} ms")


class Storing:
    """What the pipeline does with one finished picture.

    Args:
        folder: Where the store and the thumbnails are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = open_store(FolderStoreConfig(folder=folder / "pictures"))
        self._at = datetime.now(UTC)

    def put(self, number: int, path: Path) -> None:
        """Hash it and copy it into the store, flushed."""
        key = readable_key(
            self._at,
            "a cat on a roof",
            seed=number,
            job_id=new_job_id(),
            index=0,
            ordinal=0,
            suffix=".png",
        )
        self._store.put(path, key, sha256=file_sha256(path), mime="image/png")

    def everything(self, number: int, path: Path) -> None:
        """Look at it, read its metadata, put it, make its thumbnail."""
        sniff(path)
        read_metadata(path)
        self.put(number, path)
        make_thumbnail(path, self._folder / "thumbnails" / f"{number}.webp")


def encode_thumbnail(source: Path, target: Path, method: int) -> int:
    """Write the half-size picture with one of WEBP's methods; return its size."""
    small = load_picture(source).reduce(2)
    small.save(target, "WEBP", quality=78, method=method)
    return target.stat().st_size


def main() -> None:
    """Run every measurement and print a table."""
    parser = argparse.ArgumentParser(description="How long storing a picture takes.")
    parser.add_argument("--folder", type=Path, help="where to store; default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=40)
    options: Any = parser.parse_args()
    rounds: int = options.rounds
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        source = folder / "source.png"
        paint(source)
        storing = Storing(folder)
        print(
            f"{platform.platform()}, Python {platform.python_version()}, Pillow {Image.__version__}"
        )
        print(f"{source.stat().st_size / 1e6:.1f} MB PNG, {rounds} rounds, in {folder.parent}")
        print(f"{'':<44}{'median':>11}{'95 %':>11}")
        report("sniff + metadata", timed(rounds, lambda _: (sniff(source), read_metadata(source))))
        report("hash", timed(rounds, lambda _: file_sha256(source)))
        report("hash + put (copied, flushed)", timed(rounds, lambda n: storing.put(n, source)))
        report("decode", timed(rounds, lambda _: load_picture(source)))
        thumbnail = folder / "thumbnail.webp"
        report("thumbnail", timed(rounds, lambda _: make_thumbnail(source, thumbnail)))
        report(
            "all of it: one picture stored", timed(rounds, lambda n: storing.everything(n, source))
        )
        noise = folder / "noise.png"
        Image.merge("RGB", [Image.effect_noise((SIDE, SIDE), 90) for _ in range(3)]).save(noise)
        report(
            "all of it: one picture of pure noise",
            timed(rounds, lambda n: storing.everything(n, noise)),
        )
        print("of a thumbnail, decoding and WEBP's methods:")
        for method in (0, 1, 2, 4, 6):
            size = encode_thumbnail(source, thumbnail, method)
            taken = timed(rounds // 2, lambda _, m=method: encode_thumbnail(source, thumbnail, m))
            report(f"  method {method}: {size / 1000:.1f} kB", taken)
        for wanted in ("webp", "jpeg"):
            target = folder / f"again.{wanted}"
            taken = timed(rounds // 4, lambda _, f=wanted, t=target: reencode(source, t, format=f))
            report(f"encoded anew as {wanted}", taken)


if __name__ == "__main__":
    main()
