"""ComfyUI's folders `input`, `output` and `temp`, and the rules for names in them.

Source: `folder_paths.py` of ComfyUI 0.3.64 as observed ([23], [24], [33] of the recordings). The
rules are kept with their traps: counters restart after deletion, `%batch_num%` overwrites.
"""

import os
import shutil
import time
from pathlib import Path

from stablequeue.sandbox.comfyui.values import NodeFailed
from stablequeue.sandbox.painter import Card, paint

KINDS = ("output", "input", "temp")
_PLACEHOLDER = "_output_images_will_be_put_here"


class Folders:
    """The folders of one server below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = absolute(base)

    def prepare(self) -> None:
        """Make the folders; empty `temp`, as a starting server does."""
        shutil.rmtree(self.base / "temp", ignore_errors=True)
        for kind in KINDS:
            (self.base / kind).mkdir(parents=True, exist_ok=True)
        (self.base / "output" / _PLACEHOLDER).touch()
        example = self.base / "input" / "example.png"
        if not example.exists():
            paint(Card(prompt="example", width=256, height=256, mode="input")).save(example)

    def of(self, kind: str) -> Path | None:
        """Return the folder of a kind, or None for an unknown kind."""
        return self.base / kind if kind in KINDS else None

    def annotated(self, name: str) -> tuple[str, Path | None]:
        """Split `name [temp]` into the name and its folder (None without such an ending)."""
        for kind in KINDS:
            ending = f"[{kind}]"
            if name.endswith(ending):
                # one character before the bracket goes too: it is taken for a space
                return name[: -len(ending) - 1], self.base / kind
        return name, None

    def input_path(self, name: str) -> Path:
        """Return where a node looks for the picture `name`; it may lie outside, as there."""
        bare, folder = self.annotated(name)
        return (folder or self.base / "input") / bare

    def input_names(self) -> list[str]:
        """Return the pictures on the top level of `input`, sorted."""
        suffixes = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
        files = (file for file in (self.base / "input").iterdir() if file.is_file())
        return sorted(file.name for file in files if file.suffix.lower() in suffixes)

    def save_place(self, prefix: str, kind: str, width: int, height: int) -> "SavePlace":
        """Return where pictures with a filename prefix go.

        Raises:
            NodeFailed: The prefix leads outside the folder.
            OSError: The folder cannot be made or read.
        """
        root = self.base / kind
        if "%" in prefix:
            prefix = _expand(prefix, width, height)
        # os.path, because pathlib would tidy these names in other ways than the server does
        plain = os.path.normpath(prefix)
        subfolder, name = os.path.split(plain)
        folder = root / subfolder
        if not within(root, folder):
            common = os.path.commonpath((root, absolute(folder)))
            raise NodeFailed(
                "Exception",
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {absolute(folder)}"
                f"\n         output_dir: {root}\n         commonpath: {common}",
            )
        folder.mkdir(parents=True, exist_ok=True)
        return SavePlace(folder, subfolder, name, _next_number(folder, prefix, name))


class SavePlace:
    """A folder, its name as told to clients, a file name and the next number."""

    def __init__(self, folder: Path, subfolder: str, name: str, number: int) -> None:
        self.folder, self.subfolder, self.name, self.number = folder, subfolder, name, number

    def next(self, suffix: str, batch: int = 0) -> Path:
        """Return the path for the next file; `batch` is the picture's place in its batch."""
        name = self.name.replace("%batch_num%", str(batch))
        path = self.folder / f"{name}_{self.number:05}_{suffix}"
        self.number += 1
        return path

    def told(self, path: Path, kind: str) -> dict[str, str]:
        """Return what clients are told of a file."""
        return {"filename": path.name, "subfolder": self.subfolder, "type": kind}


def absolute(path: Path) -> Path:
    """Return `path` absolute and without `..`, not following links."""
    return Path(os.path.normpath(Path.cwd() / path))


def within(folder: Path, path: Path) -> bool:
    """Say whether `path` lies in `folder` (or is it), `folder` being absolute."""
    return absolute(path).is_relative_to(folder)


def is_file(path: Path) -> bool:
    """Say whether `path` is a file; False also for names no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for names too long


def _expand(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    known = {
        "%width%": str(width),
        "%height%": str(height),
        "%year%": str(now.tm_year),
        "%month%": f"{now.tm_mon:02}",
        "%day%": f"{now.tm_mday:02}",
        "%hour%": f"{now.tm_hour:02}",
        "%minute%": f"{now.tm_min:02}",
        "%second%": f"{now.tm_sec:02}",
    }
    for word, value in known.items():
        prefix = prefix.replace(word, value)
    return prefix


def _next_number(folder: Path, prefix: str, name: str) -> int:
    """Return one more than the highest number in use, judged by the prefix as it was given.

    The length compared is that of the last part of the unexpanded prefix, so a trailing slash or
    `%batch_num%` finds nothing and starts at 1 again.
    """
    length = len(os.path.split(prefix)[1])
    highest = 0
    for file in folder.iterdir():
        start, rest = file.name[: length + 1], file.name[length + 1 :]
        if start[:-1] != name or not start.endswith("_"):
            continue
        digits = rest.split("_")[0]
        highest = max(highest, int(digits) if digits.isdecimal() else 0)
    return highest + 1
