"""Where a job's stored files are."""

from collections.abc import Iterable

from stablequeue.catalogue import Asset
from stablequeue.client.session import Session
from stablequeue.storage import DEFAULT_STORE, Store, open_store, store_config
from stablequeue.store_blocks import saved_store
from stablequeue.views import Picture


class Pictures:
    """Finds stored files, for one `Session`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stores: dict[str, Store] = {}

    def of(self, job_id: str) -> list[Picture]:
        """Return the stored files of a job, by picture and ordinal."""
        stored = self._session.look.request(job_id)
        assets = self._session.catalogue.assets(stored.job_id)
        return self.located(assets)

    def located(self, assets: Iterable[Asset]) -> list[Picture]:
        """Return assets with where their files are, in the same order."""
        return [Picture(path=self.store(a.store).locate(a.key), asset=a) for a in assets]

    def store(self, name: str) -> Store:
        """Return the store with this name, as the catalogue records it.

        Raises:
            NotFound: It is no longer saved in Prefect.
            PrefectUnreachable: It is not the one in the settings, and Prefect does not answer.
        """
        if name not in self._stores:
            config = (
                store_config(self._session.settings)
                if name == DEFAULT_STORE
                else saved_store(self._session.api, name)
            )
            self._stores[name] = open_store(config)
        return self._stores[name]
