"""What the client's parts share: settings, Prefect's API, the catalogue; opened when first used."""

from functools import cached_property
from typing import TYPE_CHECKING

from stablequeue.errors import (
    CatalogueBusy,
    CatalogueError,
    CatalogueTooNew,
    PrefectUnreachable,
    SettingsError,
)
from stablequeue.secrets import private_folder
from stablequeue.server_settings import running_url
from stablequeue.settings import Settings, load

if TYPE_CHECKING:
    from stablequeue.catalogue import Catalogue
    from stablequeue.catalogue.glance import Glance
    from stablequeue.prefect_api import PrefectApi

_TIMEOUT_S = 15.0


class Session:
    """One installation, as a client sees it.

    Args:
        settings: Of the installation; None: those in force.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = load() if settings is None else settings

    @cached_property
    def api(self) -> "PrefectApi":
        """Prefect's API; nothing is sent before the first call.

        Raises:
            PrefectUnreachable: Our own server chooses its port freely and does not run.
        """
        from stablequeue.prefect_api import open_prefect  # noqa: PLC0415  # httpx: 0.15 s

        own = not self.settings.prefect_api_url
        if own and self.settings.prefect_port == 0 and not running_url(self.settings):
            message = "no Prefect server runs; start it with: stablequeue up"
            raise PrefectUnreachable(message)
        return open_prefect(self.settings, timeout_s=_TIMEOUT_S)

    @cached_property
    def catalogue(self) -> "Catalogue":
        """The catalogue, made or brought up to date if need be; for whoever writes or searches."""
        from stablequeue.catalogue import open_catalogue  # noqa: PLC0415  # SQLModel: 0.5 s

        self._make_home()
        return open_catalogue(self.settings.catalogue)

    @cached_property
    def look(self) -> "Glance":
        """The catalogue for whoever only looks: quick to open, changes nothing."""
        from stablequeue.catalogue.glance import open_glance  # noqa: PLC0415

        glance = open_glance(self.settings.catalogue)
        try:
            glance.parked()
        except (CatalogueBusy, CatalogueTooNew):
            raise
        except CatalogueError:  # not made yet, or of an older release
            self.catalogue.check()
        return glance

    def _make_home(self) -> None:
        try:
            private_folder(self.settings.home)
        except OSError as error:
            message = f"cannot make {self.settings.home} ({error.strerror or error}); choose"
            raise SettingsError(f"{message} another folder with --home") from error

    def close(self) -> None:
        """Close what was opened."""
        for name in ("api", "catalogue"):
            if (opened := self.__dict__.pop(name, None)) is not None:
                opened.close()
        if hasattr(look := self.__dict__.pop("look", None), "close"):
            look.close()
