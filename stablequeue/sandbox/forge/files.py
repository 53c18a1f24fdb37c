"""Where the server puts its pictures, and the names it gives them.

A pattern's tokens `[generation_number]` and `[batch_number]` delete the text before them when a
job makes a single picture; a pattern with a slash fails; the same name again overwrites.
Nothing is ever written outside the data folder, whatever the options say.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.options import Options
from stablequeue.sandbox.forge.plan import Plan

_TOKEN = re.compile(r"(.*?)(?:\[([^\[\]]+)\]|$)", re.DOTALL)
_LEADING_NUMBER = re.compile(r"^(\d+)")
_LONGEST = 200
_UNSAFE = re.compile(r'[<>:"|?*\n\r\t\0]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What file names are made from. `number` counts the job's pictures from 1."""

    plan: Plan
    number: int
    seed: int
    job_timestamp: str
    now: datetime


class Files:
    """The data folder (the working folder of a real server)."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self._options = folder, options

    def save(self, raw: bytes, naming: Naming, suffix: str) -> Path:
        """Write a picture below its output folder.

        Raises:
            Failure: FileNotFoundError or OSError, as the real server raises.
        """
        folder = self._output(f"outdir_{naming.plan.kind}_samples", "outdir_samples")
        if self._options["save_to_dirs"]:
            pattern = self._options.text("directories_filename_pattern") or "[date]"
            folder = self._inside(folder / apply_pattern(pattern, naming).strip("/\\. "))
        pattern = self._options.text("samples_filename_pattern")
        told = apply_pattern(pattern or "[seed]", naming)
        if self._options["save_images_add_number"] or not told:
            name = f"{next_number(folder):05}{'-' if told else ''}{told}"
        else:
            name = told
        return self._write(folder, f"{name}{suffix}", raw)

    def save_grid(self, raw: bytes, naming: Naming, suffix: str) -> Path:
        """Write a grid; see `save`."""
        folder = self._output(f"outdir_{naming.plan.kind}_grids", "outdir_grids")
        if self._options["grid_save_to_dirs"]:
            pattern = self._options.text("directories_filename_pattern") or "[date]"
            folder = self._inside(folder / apply_pattern(pattern, naming).strip("/\\. "))
        return self._write(folder, f"grid-{next_number(folder, 'grid-'):04}{suffix}", raw)

    def save_temporary(self, raw: bytes, name: str) -> Path:
        """Write a picture Gradio shows although it was not saved."""
        return self._write(self.folder / "tmp" / "gradio", name, raw)

    def find(self, told: str) -> Path:
        """Return what `/file=` may serve.

        Raises:
            PermissionError: Outside the data folder, or a folder.
            FileNotFoundError: Not there.
        """
        try:
            path = (self.folder / told).resolve()
            inside = path.is_relative_to(self.folder.resolve())
            is_folder = inside and path.is_dir()
            is_file = inside and path.is_file()
        except (OSError, ValueError) as error:
            raise PermissionError(told) from error
        if not inside or is_folder:
            raise PermissionError(told)
        if not is_file:
            raise FileNotFoundError(told)
        return path

    def _output(self, key: str, common: str) -> Path:
        told = self._options.text(common) or self._options.text(key) or "outputs"
        return self._inside(self.folder / told)

    def _inside(self, folder: Path) -> Path:
        try:
            resolved = folder.resolve()
        except (OSError, ValueError) as error:
            raise Failure(type(error).__name__, "bad output folder") from error
        if not resolved.is_relative_to(self.folder.resolve()):
            raise Failure("PermissionError", "the sandbox writes only below its own folder")
        return resolved

    def _write(self, folder: Path, name: str, raw: bytes) -> Path:
        if "/" in name or "\\" in name:
            # The server makes the output folder, but not those in a file's name.
            raise Failure("FileNotFoundError", f"[Errno 2] No such file or directory: {name!r}")
        if len(name) > _LONGEST:
            raise Failure("OSError", "[Errno 36] File name too long")
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        except (OSError, ValueError) as error:
            raise Failure(type(error).__name__, str(error)) from error
        return path


def next_number(folder: Path, prefix: str = "") -> int:
    """Return the number for the next file of a folder: one more than the largest there."""
    largest = -1
    if folder.is_dir():
        for path in folder.iterdir():
            found = _LEADING_NUMBER.match(path.name.removeprefix(prefix))
            if found and path.name.startswith(prefix):
                largest = max(largest, int(found[1][:9]))
    return largest + 1


def apply_pattern(pattern: str, naming: Naming) -> str:
    """Return `pattern` with its tokens replaced; unknown ones stay as they are."""
    result = ""
    for text, token in _TOKEN.findall(pattern):
        if not token:
            result += text
            continue
        value = _token(token.lower(), naming)
        if value is _SKIP:
            continue
        result += f"{text}[{token}]" if value is None else f"{text}{value}"
    return _UNSAFE.sub("_", result)


_SKIP = "\0skip"


def _token(token: str, naming: Naming) -> str | None:
    plan = naming.plan
    single = len(plan.seeds) == 1
    values: dict[str, Callable[[], str]] = {
        "seed": lambda: str(naming.seed),
        "seed_first": lambda: str(plan.seeds[0]),
        "seed_last": lambda: str(plan.seeds[-1]),
        "steps": lambda: str(plan.steps),
        "cfg": lambda: str(plan.cfg_scale),
        "width": lambda: str(plan.target[0]),
        "height": lambda: str(plan.target[1]),
        "sampler": lambda: _plain(plan.sampler),
        "scheduler": lambda: _plain(plan.scheduler),
        "model_name": lambda: _plain(plan.checkpoint.base_name),
        "model_hash": lambda: plan.checkpoint.file.short_hash,
        "date": lambda: naming.now.strftime("%Y-%m-%d"),
        "datetime": lambda: naming.now.strftime("%Y%m%d%H%M%S"),
        "job_timestamp": lambda: naming.job_timestamp,
        "prompt": lambda: _plain(plan.prompt)[:120],
        "prompt_spaces": lambda: plan.prompt.replace("/", "_").replace("\\", "_")[:120],
        "generation_number": lambda: _SKIP if single else str(naming.number),
        "batch_number": lambda: _SKIP if single else str(1 + (naming.number - 1) % plan.batch_size),
        "batch_size": lambda: str(plan.batch_size),
    }
    make = values.get(token)
    return make() if make else None


def _plain(text: str) -> str:
    return re.sub(r"[\s/\\]+", "_", text)
