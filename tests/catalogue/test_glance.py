"""Quick looks answer as the catalogue does, without its weight."""

import subprocess
import sys
from pathlib import Path

import pytest

from stablequeue.catalogue import Catalogue, JobState, NewJob, Outcome
from stablequeue.catalogue.glance import SqliteGlance, open_glance
from stablequeue.errors import CatalogueError, NotFound, Refused
from stablequeue.ids import new_job_id, short_id
from stablequeue.request import GenerationRequest
from tests.catalogue.making import accepted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filled(catalogue: Catalogue) -> list[str]:
    """Job ids of a catalogue with something in every state."""
    jobs = [
        accepted(catalogue, f"cat {number} ü", tags=[f"Tag{number % 3}"], server="gpu-a")
        for number in range(12)
    ]
    ids = [job.job_id for job in jobs]
    for state, job_id in zip(JobState, ids, strict=False):
        if state is JobState.SENT:
            catalogue.mark_sent(job_id, "run")
        elif state is JobState.STARTED:
            catalogue.start(
                GenerationRequest(prompt="started", server="gpu-b"),
                job_id=job_id,
                seed=1,
                server="gpu-b",
                flow_run_id="run",
                deployment="generate/gpu-b",
            )
        elif state is not JobState.ACCEPTED:
            catalogue.finish(job_id, Outcome(state=state, code="c", message="m", advice="a"))
    catalogue.park("gpu-a", "disk full")
    return ids


def test_a_glance_sees_what_the_catalogue_says(
    catalogue: Catalogue, catalogue_url: str, filled: list[str]
) -> None:
    glance = open_glance(catalogue_url)
    asked = [*filled, new_job_id()]

    assert glance.requests_by_id(asked) == catalogue.requests_by_id(asked)
    assert glance.outcomes(asked) == catalogue.outcomes(asked)
    assert len(glance.outcomes(asked)) == 7
    assert glance.parked() == catalogue.parked()
    for job_id in filled:
        assert glance.request(short_id(job_id)) == catalogue.request(job_id)
        assert glance.request(job_id).request == catalogue.request(job_id).request
    middle = catalogue.requests()[5].id
    for states in ((), (JobState.FAILED,), {JobState.ACCEPTED, JobState.STARTED}):
        for server in (None, "gpu-a", "gpu-b"):
            for tag in (None, "tag1", "TAG2", "x"):
                for before in (None, middle):
                    asked_for = {"states": states, "server": server, "tag": tag, "before": before}
                    assert glance.requests(**asked_for, limit=4) == catalogue.requests(  # pyright: ignore[reportArgumentType]  # mixed values
                        **asked_for,  # pyright: ignore[reportArgumentType]
                        limit=4,
                    ), asked_for


def test_a_glance_refuses_as_the_catalogue_does(
    catalogue: Catalogue, catalogue_url: str, filled: list[str]
) -> None:
    glance = open_glance(catalogue_url)
    assert filled
    for part in ("", "zz", "%", "ffffffff-ffff"):
        with pytest.raises(NotFound) as ours:
            glance.request(part)
        with pytest.raises(NotFound) as theirs:
            catalogue.request(part)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(Refused, match="more than one"):
        glance.request("0")


def test_a_glance_at_many_jobs_asks_in_portions(catalogue: Catalogue, catalogue_url: str) -> None:
    request = GenerationRequest(prompt="cat")
    jobs = catalogue.accept_many(
        [NewJob(request=request, job_id=new_job_id(), seed=1, deployment="d") for _ in range(1010)]
    )
    found = open_glance(catalogue_url).requests_by_id(job.job_id for job in jobs)
    assert found == {job.job_id: job for job in jobs}
    assert len(open_glance(catalogue_url).requests(limit=5000)) == 1000


def test_a_glance_at_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(CatalogueError, match="not a database"):
        open_glance(f"sqlite:///{path}").parked()


def test_a_glance_is_light(tmp_path: Path) -> None:
    Catalogue(f"sqlite:///{tmp_path / 'c.db'}").migrate()
    script = (
        "import sys; from stablequeue.catalogue.glance import open_glance;"
        "glance = open_glance(sys.argv[1]); glance.requests(); glance.parked();"
        "heavy = {'sqlalchemy', 'sqlmodel', 'pydantic', 'alembic', 'prefect', 'httpx'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path / 'c.db'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stdout.strip() == "[]"


def test_only_sqlite_has_the_short_cut(catalogue_url: str, backend: str) -> None:
    assert isinstance(open_glance(catalogue_url), SqliteGlance) is (backend == "sqlite")


def test_the_package_names_nothing_it_does_not_have() -> None:
    import stablequeue.catalogue as package  # noqa: PLC0415

    assert package.open_catalogue is not None
    assert set(package.__all__) <= {*dir(package), "Catalogue", "open_catalogue"}
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense
