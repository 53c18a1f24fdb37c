"""Measure StableQueue beside Prefect's own worker and write docs/benchmarks.md: `make bench`.

At most 20 minutes. Every figure is measured in the same run, on the sandbox with fixed step times,
and stands beside the load it was taken at: nothing here is a test, since on a shared machine times
say as much about the neighbours. `make bench-rest` (`--rest`) measures starting, commands, storing
and search, in 12 minutes of its own. `curl` and `aria2c` are raced where they are installed.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import house_figures, policy
from benchmarks.engine import Engine
from benchmarks.pace import Values, accepting, accepting_singly, cancelling, everything
from benchmarks.report import Row, comparison, heading, load, table, write
from benchmarks.site import Stock, ours

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
MANY = 1000


@dataclass(frozen=True)
class Wanted:
    """A figure of the main table: its key among the values, its name, its goal."""

    key: str
    name: str
    goal: str
    more_is_better: bool = False


FIGURES = (
    Wanted("reached", "submit until the engine begins, idle, median", "0.25 s"),
    Wanted("reached_p95", "the same, 95th percentile", "0.5 s"),
    Wanted("cpu_job", "CPU of a job, all processes, backlog", "0.8 s (0.6)"),
    Wanted("cpu_idle_job", "CPU of a job, one at a time", ""),
    Wanted("rate", "jobs a minute, backlog of tiny jobs", "120 (180)", more_is_better=True),
    Wanted("busy_1", "GPU busy, 1 s jobs, ComfyUI", "99 %", more_is_better=True),
    Wanted("busy_forge", "GPU busy, 1 s jobs, Forge", "98 %", more_is_better=True),
    Wanted("busy_03", "GPU busy, 0.3 s jobs, ComfyUI", "75 % (85 %)", more_is_better=True),
    Wanted("idle_own", "CPU idle, worker and what starts it, of a core", "1 %"),
    Wanted("idle_server", "CPU idle, Prefect's server, of a core", ""),
    Wanted("accepted", f"accept {MANY:,} jobs durably", "3 s"),
    Wanted("created", f"{MANY:,} jobs are flow runs", "30 s"),
    Wanted("database", "growth of Prefect's database a job", "50 KiB"),
    Wanted("memory_worker", "memory of worker and runners, idle", "400 MB"),
    Wanted("memory", "memory of everything, idle", "700 MB"),
    Wanted("cancel", "cancel until the next job generates", "2 s"),
    Wanted("seen", "finished on the engine until shown as finished", "1 s"),
)


def measure_ours(folder: Path, engine: Engine, jobs: int, many: int) -> Values:
    """Measure `stablequeue up` as it is."""
    with ours(folder / "home", engine) as house:
        found = everything(house, engine, jobs=jobs, many=many, forge=True)
        found |= cancelling(house, engine, rounds=4)
        return found | accepting(house, jobs=MANY)


def measure_stock(folder: Path, engine: Engine) -> tuple[Values, Values]:
    """Measure Prefect's worker as it comes, and tuned."""
    stock = Stock(folder / "stock", engine)
    with stock.running():
        with stock.worker(tuned=False):
            plain = everything(stock, engine, jobs=3, many=8, forge=False)
            plain |= accepting_singly(stock, jobs=20, of=MANY)
        with stock.worker(tuned=True):
            tuned = everything(stock, engine, jobs=5, many=12, forge=False)
            tuned |= accepting_singly(stock, jobs=20, of=MANY)
    return plain, tuned


def rows(plain: Values, tuned: Values, own: Values) -> list[Row]:
    """Return the main table."""
    found: list[Row] = []
    for wanted in FIGURES:
        cells = [values.get(wanted.key) for values in (plain, tuned, own)]
        _, best, mine = cells
        ratio = ""
        if best is not None and mine is not None and best.number > 0 and mine.number > 0:
            pair = (mine, best) if wanted.more_is_better else (best, mine)
            ratio = f"{pair[0].number / pair[1].number:.1f}"
        one, two, three = (cell.shown() if cell is not None else "-" for cell in cells)
        found.append(Row(wanted.name, one, two, three, ratio, wanted.goal))
    return found


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure, and write docs/benchmarks.md.")
    parser.add_argument("--jobs", type=int, default=20, help="single jobs, one after the other")
    parser.add_argument("--many", type=int, default=40, help="jobs of a backlog")
    parser.add_argument(
        "--rest", action="store_true", help="instead: starting, commands, storing, search"
    )
    parser.add_argument("--no-stock", action="store_true", help="leave Prefect's own worker out")
    parser.add_argument("--write", type=Path, default=DOCUMENT, help="the document to refresh")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    begun = load()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="stablequeue-bench-"))
    command = "make bench-rest" if options.rest else "make bench"
    try:
        if options.rest:
            measured = table(house_figures.measure(folder, 1_000_000))
        else:
            measured = _queue(folder, options)
    except (TimeoutError, RuntimeError):
        print(f"what ran is kept in {folder}", file=sys.stderr)
        raise
    text = f"{heading(command, begun)}\n{measured}"
    print(text)
    write(text, options.write, command)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"written: {options.write}")


def _queue(folder: Path, options: argparse.Namespace) -> str:
    engine = Engine(folder / "engine")
    with engine.running():
        own = _said("ours", lambda: measure_ours(folder, engine, options.jobs, options.many))
        plain, tuned = Values(), Values()
        if not options.no_stock:
            plain, tuned = measure_stock(folder, engine)
    figures = [*policy.figures(), *house_figures.libraries(folder)]
    return f"{comparison(rows(plain, tuned, own))}\n{table(figures)}"


def _said(name: str, work: Callable[[], Values]) -> Values:
    values = work()
    for key, value in values.items():
        print(f"{name} {key}: {value.shown()}", flush=True)
    return values


if __name__ == "__main__":
    main()
