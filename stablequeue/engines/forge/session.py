"""One session's knowledge of its server: which run of its process this is, what it lacks."""

from stablequeue.engines.forge import answers
from stablequeue.engines.forge.boot import LATE_ROUTES_S, Boot, boot_of
from stablequeue.engines.forge.client import ForgeClient
from stablequeue.errors import EngineBusy, EngineError, Unsupported
from stablequeue.servers import ServerConfig


class Session:
    """A client, and who answers it.

    Attributes:
        server: Its saved configuration.
        client: Its HTTP interface.
        sandbox: Whether it said that it is our own sandbox.
        last_boot: Which run of its process answered last.
    """

    def __init__(self, server: ServerConfig, client: ForgeClient) -> None:
        self.server, self.client = server, client
        self.sandbox = False
        self._without_id = self.last_boot = Boot("")
        self._names_files: bool | None = None

    @property
    def alias(self) -> str:
        """The server's alias."""
        return self.server.alias

    async def boot(self) -> Boot:
        """Ask which run of its process answers now."""
        told = await self.client.app_id()
        if told is None:  # --nowebui: no identity, so nothing outlives this session
            self.last_boot = self._without_id
        else:
            self.sandbox = told.stablequeue_sandbox
            self.last_boot = boot_of(self.server.base_url, str(told.app_id))
        return self.last_boot

    async def checkpoints(self) -> list[answers.Checkpoint]:
        """List the checkpoints.

        Raises:
            EngineBusy: Its API is not there yet.
            Unsupported: Its API is off.
        """
        found = await self.client.checkpoints()
        boot = await self.boot()
        if found is None:
            raise await self._no_api(boot)
        boot.found("api")
        return found

    async def names_files(self) -> bool:
        """Whether pictures are saved under the names we ask for.

        With `--hide-ui-dir-config` that setting is ignored without a word. Asked only when a file
        is missing: the answer is usually a 500 with a traceback on the server's console.
        """
        if self._names_files is None:
            flags = await self.client.flags()
            self._names_files = flags.get("hide_ui_dir_config") is not True
        return self._names_files

    def lacks(self, boot: Boot, what: str, field: str, problem: str) -> EngineError:
        """Return the error for a missing route: still starting at first, then not supported."""
        if boot.missing(what):
            return Unsupported(self.alias, field, problem)
        return EngineBusy(
            self.alias,
            f"it is not ready: {what} is not there yet. If it stays so for {LATE_ROUTES_S:g} s:"
            f" {problem}",
        )

    async def _no_api(self, boot: Boot) -> EngineError:
        advice = "it was started without its API; start it with --api"
        if boot.id or await self.client.has_config():
            return self.lacks(boot, "api", "server", advice)
        return Unsupported(
            self.alias,
            "server",
            f"neither Forge nor AUTOMATIC1111 answers at {self.server.base_url}, or {advice}",
        )
