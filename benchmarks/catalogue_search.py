"""Search times over a million generated pictures, on SQLite and PostgreSQL.

Run from the checkout: `python -m benchmarks.catalogue_search --rows 1000000`. Rows are written in
bulk, straight into the tables; what is timed is `Catalogue.search` as every caller uses it, from
the call to the records, with other words, models and dates each time.
"""

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import psycopg

from stablequeue.catalogue import Catalogue, NewAsset
from stablequeue.catalogue.words import SearchDocument, facet_token
from stablequeue.engines.base import Kind, Ticket
from stablequeue.ids import new_job_id
from stablequeue.request import GenerationRequest
from tests.support.postgres import binaries, run_postgres

START = datetime(2024, 11, 21, tzinfo=UTC)
DAYS = 730
PICTURES_A_JOB = 4
HALF = "masterpiece"
"""The word in half of the rows."""
RARE_EVERY = 100_000
"""A rare word is in one row of so many."""
RARE_WORDS = 100
MODELS = [f"checkpoint {letter}.safetensors" for letter in "abcdefghijkl"]
SERVERS = [f"gpu-{letter}" for letter in "abcd"]
TAGS = ["portrait", "landscape", "draft", "final"]
FACETS = [
    *(("model", name) for name in MODELS),
    *(("model", name.removesuffix(".safetensors")) for name in MODELS),
    *(("server", name) for name in SERVERS),
    *(("tag", name) for name in TAGS),
    ("kind", "image"),
]
TOKENS = {facet: facet_token(number) for number, facet in enumerate(FACETS, start=1)}
COLUMNS = {
    "facets": "id kind value",
    "requests": "id job_id reversed_id data seed state server deployment source flow_run_id"
    " accepted_at sent_at started_at",
    "attempts": "id job_id idx attempt server engine ticket state repeat note error created_at"
    " updated_at",
    "blobs": "id sha256 store key size mime refs created_at",
    "assets": "id job_id idx ordinal attempt_id blob_id kind mime width height name prompt infotext"
    " params models tags seed engine engine_version gpu server original_sha256 warnings created_at"
    " trashed_at search",
    "asset_hours": "hour first_id last_id",
}
RANDOM = random.Random(20261121)


@dataclass(frozen=True)
class Timing:
    """One kind of query; times in milliseconds."""

    name: str
    first: float
    median: float
    p95: float
    worst: float
    found: float


class Generator:
    """Rows of a catalogue with so many pictures, table by table.

    Args:
        rows: How many pictures.
        document: Form of the search column.
        moment: Form of a datetime.
        boolean: Form of a truth value.
    """

    def __init__(
        self,
        rows: int,
        document: Callable[[SearchDocument], str],
        moment: Callable[[datetime], Any],
        boolean: Callable[[bool], Any],
    ) -> None:
        self.rows, self._document, self._moment, self._boolean = rows, document, moment, boolean
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._vocabulary = sorted(
            {"".join(RANDOM.choices(letters, k=RANDOM.randint(3, 10))) for _ in range(20_000)}
        )
        RANDOM.shuffle(self._vocabulary)
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self._vocabulary))))

    def common_words(self, count: int) -> list[str]:
        """Return the most frequent words of the vocabulary."""
        return self._vocabulary[:count]

    def tables(self) -> Iterator[tuple[str, Iterator[tuple[Any, ...]]]]:
        """Yield every table with its rows, in an order that foreign keys allow."""
        yield "facets", ((number, *facet) for number, facet in enumerate(FACETS, start=1))
        yield "requests", self._requests()
        yield "attempts", self._attempts()
        yield "blobs", self._blobs()
        yield "assets", self._assets()
        yield "asset_hours", self._hours()

    def made_at(self, number: int) -> datetime:
        """Return when picture `number` was made."""
        return START + timedelta(seconds=int(number * DAYS * 86400 / self.rows))

    def _job(self, number: int) -> str:
        return f"01930000-0000-7000-8000-{(number - 1) // PICTURES_A_JOB:012x}"

    def _requests(self) -> Iterator[tuple[Any, ...]]:
        data = json.dumps({"schema_version": 1, "prompt": "generated", "count": PICTURES_A_JOB})
        for number in range(1, self.rows + 1, PICTURES_A_JOB):
            job, at = self._job(number), self._moment(self.made_at(number))
            end = job.replace("-", "")[::-1]
            job_number = (number - 1) // PICTURES_A_JOB + 1
            yield (
                *(job_number, job, end, data, number, "completed", "gpu-a"),
                *("generate/any", "", f"run-{job_number}", at, at, at),
            )

    def _attempts(self) -> Iterator[tuple[Any, ...]]:
        ticket = json.dumps({"engine": "forge", "remote_id": "0" * 36, "data": {}})
        for number in range(1, self.rows + 1):
            at = self._moment(self.made_at(number))
            yield (
                *(number, self._job(number), (number - 1) % PICTURES_A_JOB, 1, "gpu-a", "forge"),
                *(ticket, "stored", self._boolean(False), "", "", at, at),
            )

    def _blobs(self) -> Iterator[tuple[Any, ...]]:
        for number in range(1, self.rows + 1):
            at = self.made_at(number)
            sha256 = f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4
            key = f"{at:%Y-%m-%d}/{sha256[:12]}.png"
            yield (number, sha256, "pictures", key, 1_500_000, "image/png", 1, self._moment(at))

    def _assets(self) -> Iterator[tuple[Any, ...]]:
        weights = list(accumulate(1 / rank for rank in range(1, len(MODELS) + 1)))
        params = json.dumps({"Steps": 20, "Sampler": "DPM++ 2M", "CFG scale": 7, "x": "y" * 200})
        for number in range(1, self.rows + 1):
            words = RANDOM.choices(self._vocabulary, cum_weights=self._weights, k=20)
            if RANDOM.random() < 0.5:  # so that no picture's neighbours foretell it
                words.insert(0, HALF)
            if number % RARE_EVERY < RARE_WORDS:
                words.append(f"rare{number % RARE_EVERY}")
            prompt = " ".join(words)
            (model,) = RANDOM.choices(MODELS, cum_weights=weights)
            stem = model.removesuffix(".safetensors")
            server, tag = RANDOM.choice(SERVERS), RANDOM.choice(TAGS)
            facets = [("model", model), ("model", stem), ("server", server), ("tag", tag)]
            document = SearchDocument(
                [*words, *stem.split(), tag],
                [TOKENS[facet] for facet in [*facets, ("kind", "image")]],
            )
            infotext = f"{prompt}\nNegative prompt: blurry\nSteps: 20, Size: 512x512, Model: {stem}"
            yield (
                *(number, self._job(number), (number - 1) % PICTURES_A_JOB, 0, number, number),
                *("image", "image/png", 512, 512, f"{number:05}.png", prompt, infotext, params),
                *(json.dumps({model: "ab" * 32}), json.dumps([tag]), number, "forge", "f2.0"),
                *("NVIDIA GeForce RTX 3060", server, "", "[]"),
                *(self._moment(self.made_at(number)), None, self._document(document)),
            )

    def _hours(self) -> Iterator[tuple[Any, ...]]:
        hours: dict[int, tuple[int, int]] = {}
        for number in range(1, self.rows + 1):
            hour = int(self.made_at(number).timestamp()) // 3600
            hours[hour] = (hours.get(hour, (number, 0))[0], number)
        for hour, ids in hours.items():
            yield (hour, *ids)


def fill_sqlite(path: Path, rows: int) -> Generator:
    """Make an SQLite catalogue with so many pictures."""
    Catalogue(f"sqlite:///{path}").migrate()
    made = Generator(
        rows,
        SearchDocument.fts5,
        lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.%f"),
        int,
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        (trigger,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'assets_search_insert'"
        ).fetchone()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DROP TRIGGER assets_search_insert")  # the index is made at once below
        for table, values in made.tables():
            columns = COLUMNS[table].split()
            names = ", ".join(f'"{column}"' for column in columns)
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)  # noqa: S608  # our names
        connection.execute("INSERT INTO asset_search(asset_search) VALUES ('rebuild')")
        connection.execute(trigger)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return made


def fill_postgresql(connection: "psycopg.Connection[Any]", rows: int) -> Generator:
    """Fill a migrated PostgreSQL catalogue with so many pictures."""
    made = Generator(rows, SearchDocument.tsvector, lambda moment: moment, bool)
    with connection.transaction():
        (index,) = connection.execute(
            "SELECT pg_get_indexdef('ix_assets_search'::regclass)"
        ).fetchone() or ("",)
        connection.execute("DROP INDEX ix_assets_search")  # made at once below
        for table, values in made.tables():
            names = ", ".join(f'"{column}"' for column in COLUMNS[table].split())
            statement = f"COPY {table} ({names}) FROM STDIN"
            with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                for row in values:
                    copy.write_row(row)
        connection.execute(index.encode())
        for table in ("facets", "requests", "attempts", "blobs", "assets"):
            numbers = (
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608  # our names
            )
            connection.execute(numbers.encode())
    connection.execute("VACUUM ANALYZE")
    return made


def queries(made: Generator) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is asked, by name; every call asks something else of the kind."""
    common = made.common_words(50)
    span = DAYS * 86400

    def window(days: float) -> dict[str, Any]:
        since = START + timedelta(seconds=RANDOM.uniform(0, span - days * 86400))
        return {"since": since, "until": since + timedelta(days=days)}

    def model() -> dict[str, Any]:
        return {"model": RANDOM.choice(MODELS)}

    def page() -> dict[str, Any]:
        return {"before": RANDOM.randrange(1000, made.rows)}

    return {
        "newest, no filter": dict,
        "rare word (1 row in 100,000)": lambda: {"text": f"rare{RANDOM.randrange(RARE_WORDS)}"},
        "word in half of the rows": lambda: {"text": HALF, **page()},
        "prefix of that word, 3 letters": lambda: {"text": f"{HALF[:3]}*", **page()},
        "prefix of that word, 9 letters": lambda: {"text": f"{HALF[:9]}*", **page()},
        "prefix of a rare word": lambda: {"text": f"rare{RANDOM.randrange(1, 9)}*"},
        "model + 30 days": lambda: {**model(), **window(30)},
        "model + 1 hour": lambda: {**model(), **window(1 / 24)},
        "word in half + model + 30 days": lambda: {"text": HALF, **model(), **window(30)},
        "word in half + model + tag + server": lambda: {
            "text": HALF,
            **model(),
            "tag": RANDOM.choice(TAGS),
            "server": RANDOM.choice(SERVERS),
        },
        "two common words + 30 days": lambda: {
            "text": " ".join(RANDOM.sample(common, 2)),
            **window(30),
        },
        "rare word + word in half": lambda: {"text": f"{HALF} rare{RANDOM.randrange(RARE_WORDS)}"},
        "phrase": lambda: {"text": f'"{HALF} {RANDOM.choice(common)}"', **page()},
        "nothing (words that never meet)": lambda: {
            "text": f"rare{RANDOM.randrange(50)} rare{RANDOM.randrange(50, 100)}"
        },
    }


def measure(catalogue: Catalogue, made: Generator, runs: int) -> list[Timing]:
    """Time recording, then every kind of query, so many times each."""
    catalogue.check()
    timings = [timed("record_assets: one more picture", recording(catalogue, made), runs)]
    for name, ask in queries(made).items():
        timings.append(timed(name, searching(catalogue, ask), runs))
    return timings


def timed(name: str, prepare: Callable[[], Callable[[], int]], runs: int) -> Timing:
    """Time what `prepare` returns, which says how much it found."""
    times: list[float] = []
    found: list[int] = []
    for _ in range(runs):
        work = prepare()
        begun = time.perf_counter()
        found.append(work())
        times.append((time.perf_counter() - begun) * 1000)
    p95 = statistics.quantiles(times, n=20)[-1]
    return Timing(name, times[0], statistics.median(times), p95, max(times), statistics.mean(found))


def searching(
    catalogue: Catalogue, ask: Callable[[], dict[str, Any]]
) -> Callable[[], Callable[[], int]]:
    """Return what prepares one search for the 50 newest."""

    def prepare() -> Callable[[], int]:
        arguments = ask()
        return lambda: len(catalogue.search(**arguments, limit=50))

    return prepare


def recording(catalogue: Catalogue, made: Generator) -> Callable[[], Callable[[], int]]:
    """Return what prepares recording one picture of a new job."""

    def prepare() -> Callable[[], int]:
        words = RANDOM.choices(made.common_words(5_000), k=20)
        job = catalogue.accept(
            GenerationRequest(prompt=" ".join(words), tags=[RANDOM.choice(TAGS)]),
            job_id=new_job_id(),
            seed=1,
            deployment="generate/any",
        )
        attempt = catalogue.begin_attempt(
            job.job_id,
            0,
            server=SERVERS[0],
            engine="forge",
            make_ticket=lambda number: Ticket(engine="forge", remote_id=str(number)),
        )
        new = NewAsset(
            ordinal=0,
            kind=Kind.IMAGE,
            mime="image/png",
            sha256=RANDOM.randbytes(32).hex(),
            size=1_500_000,
            store="pictures",
            key=f"new/{job.job_id}.png",
            models={RANDOM.choice(MODELS): "ab" * 32},
            server=RANDOM.choice(SERVERS),
        )
        return lambda: len(catalogue.record_assets(attempt.id, [new]))

    return prepare


def print_table(title: str, timings: Sequence[Timing]) -> None:
    """Print the timings as a table for docs/benchmarks.md."""
    print(f"\n{title}\n")
    print(
        "| what (a search gives the 50 newest) | found | first ms | median ms | p95 ms | worst ms |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for one in timings:
        print(
            f"| {one.name} | {one.found:.0f} | {one.first:.1f} | {one.median:.1f}"
            f" | {one.p95:.1f} | {one.worst:.1f} |"
        )


def run_sqlite(folder: Path, rows: int, runs: int) -> None:
    """Fill, measure and print, on SQLite."""
    path = folder / "catalogue.db"
    begun = time.perf_counter()
    made = fill_sqlite(path, rows)
    seconds, size = time.perf_counter() - begun, path.stat().st_size / 2**20
    catalogue = Catalogue(f"sqlite:///{path}")
    timings = measure(catalogue, made, runs)
    catalogue.close()
    version = sqlite3.sqlite_version
    print_table(
        f"SQLite {version}: {rows:,} pictures, {size:,.0f} MiB, made in {seconds:.0f} s", timings
    )


def run_postgresql(rows: int, runs: int) -> None:
    """Fill, measure and print, on a PostgreSQL server started for it."""
    folder = binaries()
    if folder is None:
        print("\nPostgreSQL: no binaries here, not measured")
        return
    with run_postgres(folder) as server, server.database() as name:
        catalogue = Catalogue(server.url(name))
        catalogue.migrate()
        begun = time.perf_counter()
        with server.connect(name) as connection:
            made = fill_postgresql(connection, rows)
            seconds = time.perf_counter() - begun
            version = connection.info.server_version // 10_000
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        size = row[0] / 2**20 if row else 0
        timings = measure(catalogue, made, runs)
        catalogue.close()
    print_table(
        f"PostgreSQL {version}: {rows:,} pictures, {size:,.0f} MiB, made in {seconds:.0f} s",
        timings,
    )


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200, help="times each query is asked")
    parser.add_argument("--backend", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--folder", type=Path, default=None, help="where the SQLite file is made")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, ignore_cleanup_errors=True) as folder:
        if given.backend != "postgresql":
            run_sqlite(Path(folder), given.rows, given.runs)
    if given.backend != "sqlite":
        run_postgresql(given.rows, given.runs)


if __name__ == "__main__":
    main()
