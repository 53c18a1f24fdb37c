"""`Catalogue`: everything the parts offer, on one database."""

from stablequeue.catalogue import schema
from stablequeue.catalogue.assets import AssetPart
from stablequeue.catalogue.attempts import AttemptPart
from stablequeue.catalogue.engine import Database
from stablequeue.catalogue.outcomes import OutcomePart
from stablequeue.catalogue.records import MigrationReport
from stablequeue.catalogue.requests import RequestPart
from stablequeue.catalogue.search import SearchPart
from stablequeue.catalogue.waiting import WaitingPart

PATIENCE_S = 30.0


class Catalogue(RequestPart, WaitingPart, AttemptPart, AssetPart, OutcomePart, SearchPart):
    """What was asked, each attempt's ticket, what came out.

    Calls block for milliseconds, rarely for as long as other writers hold the database; call them
    from a thread in asynchronous code. Any number of threads and processes may use one database,
    each process through a Catalogue of its own or one inherited by fork.

    Every method raises `CatalogueBusy` (retryable) when it cannot have the database in time and
    `CatalogueError` for anything else about it, besides what it says itself.

    Args:
        url: `sqlite:///PATH` or `postgresql+psycopg://...`. No connection is made before first use.
        patience_s: How long to wait for other writers, in seconds.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self._db = Database(url, first_use=schema.verify, patience_s=patience_s)

    def migrate(self) -> MigrationReport:
        """Bring the schema up to date; see `stablequeue.catalogue.schema.migrate`."""
        return schema.migrate(self._db.url, self._db.name)

    def check(self) -> None:
        """Say whether this release can work with the database.

        Raises:
            CatalogueTooNew: Written by a newer release.
            CatalogueError: Not made yet, or of an older release: `migrate` helps.
        """
        self._db.verify()

    def close(self) -> None:
        """Close this process's connections; a later call opens new ones."""
        self._db.close()


def open_catalogue(url: str) -> Catalogue:
    """Return a catalogue that is there and up to date.

    Raises:
        CatalogueTooNew: Written by a newer release.
        CatalogueError: It cannot be opened or brought up to date; says why.
    """
    catalogue = Catalogue(url)
    catalogue.migrate()
    return catalogue
