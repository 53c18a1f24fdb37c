"""`servers add`, `ls`, `test`, `rm`, `import`: the saved generation servers."""

import re
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import SecretStr, ValidationError

from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.errors import BadRequest, EngineError, NotFound, Refused
from stablequeue.server_blocks import (
    RESERVED,
    block_data,
    remove_server,
    save_server,
    saved_server,
    saved_servers,
)
from stablequeue.servers import ALIAS_PATTERN, ServerConfig
from stablequeue.worker import WORKER_TYPE

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.prefect_api import PrefectApi

_ACCESS = Group("Credentials (- reads a line from stdin, or asks)", sort_key=1)
_MODEL_FILES = Group("How model files reach it", sort_key=2)
_FINE = Group("Fine tuning", sort_key=3)
_OFFLINE_AFTER = timedelta(seconds=100)  # a worker's heartbeat comes every 30 s
_LISTENS_WITHIN_S = 1.5
_READY = "ready"
_MODEL_LISTS = ("checkpoints", "unets", "text encoders", "vaes", "loras")
_ALSO_FORGE = {"automatic1111", "a1111", "reforge", "sdnext", "sd.next"}


def add(
    alias: Annotated[str, Parameter(help="Its name: lower case letters, digits, hyphens.")],
    /,
    *,
    type_: Annotated[
        str | None, Parameter(name="--type", help="comfyui or forge; empty: found out by asking.")
    ] = None,
    url: Annotated[str | None, Parameter(help="Base URL, e.g. http://127.0.0.1:8188.")] = None,
    card: Annotated[
        str | None,
        Parameter(help="HOST/GPU it uses. Servers on one card never generate at once."),
    ] = None,
    store: Annotated[
        str | None, Parameter(help="Store for its pictures; empty: the default one.")
    ] = None,
    username: Annotated[str | None, Parameter(group=_ACCESS, help="HTTP Basic user.")] = None,
    password: Annotated[str | None, Parameter(group=_ACCESS, help="HTTP Basic password.")] = None,
    token: Annotated[str | None, Parameter(group=_ACCESS, help="Bearer token.")] = None,
    ui_username: Annotated[
        str | None, Parameter(group=_ACCESS, help="Forge: --gradio-auth user.")
    ] = None,
    ui_password: Annotated[
        str | None, Parameter(group=_ACCESS, help="Forge: --gradio-auth password.")
    ] = None,
    connect_timeout: Annotated[
        float | None, Parameter(group=_FINE, help="Seconds to wait for a connection.")
    ] = None,
    read_timeout: Annotated[
        float | None, Parameter(group=_FINE, help="Seconds to wait for short answers.")
    ] = None,
    stall_after: Annotated[
        float | None, Parameter(group=_FINE, help="Seconds without progress that are a stall.")
    ] = None,
    models_from: Annotated[
        Literal["none", "same", "mapped", "worker"] | None,
        Parameter(
            group=_MODEL_FILES,
            help="none: models it lacks are not fetched; same: its model folders are those of"
            " the library; mapped: it sees them elsewhere; worker: they are those of the machine"
            " its worker runs on.",
        ),
    ] = None,
    model_path: Annotated[
        list[str] | None,
        Parameter(
            group=_MODEL_FILES,
            help=r"For mapped: LOCAL=REMOTE, e.g. /srv/models=D:\models; may be repeated.",
        ),
    ] = None,
    update: Annotated[bool, Parameter(help="Change a saved server; the rest stays.")] = False,
    test: Annotated[bool, Parameter(negative="--no-test", help="Ask the server first.")] = True,
    paused: Annotated[
        bool, Parameter(help="Start none of its jobs until: stablequeue resume ALIAS.")
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Save a server, or change a saved one.

    A running `stablequeue up` notices it and starts its worker within seconds. A server that
    does not answer now is saved all the same.
    """
    alias = _alias(alias)
    given: dict[str, Any] = {
        "type": _kind(type_),
        "url": url,
        "card": card,
        "store": store,
        "username": username,
        "password": _secret("--password", password, common),
        "token": _secret("--token", token, common),
        "ui_username": ui_username,
        "ui_password": _secret("--ui-password", ui_password, common),
        "connect_timeout_s": connect_timeout,
        "read_timeout_s": read_timeout,
        "stall_after_s": stall_after,
        "models_from": models_from or ("mapped" if model_path else None),
        "model_paths": model_path,
    }
    given = {name: value for name, value in given.items() if value is not None}
    about_models = ""
    with common.client() as queue:
        api = queue.session.api
        old = _saved(api, alias)
        if old is not None and not update:
            message = f"server {alias} is saved already; change it with --update"
            raise Refused(message)
        if old is None and "url" not in given:
            raise BadRequest("--url", "needed for a new server")
        fields = {**(block_data(old) if old else {}), **given, "alias": alias}
        if "type" not in fields:
            fields["type"] = _asked_type(fields)
        config = checked(fields)
        looks = look_at([config]) if test else []
        if looks and old is None and models_from is None and not model_path:
            config, about_models = _with_models(queue, config, looks[0])
        if paused and alias not in RESERVED:
            api.begin_paused(alias, kind=WORKER_TYPE)
        save_server(api, config)
    for look in looks:
        common.note(look.line())
    if about_models:
        common.note(about_models)
    about = f"Server {alias} is {'changed' if old else 'saved'}."
    data = {"alias": alias, "saved": True, "test": looks[0].to_json() if looks else None}
    common.emit(data, "" if common.quiet else about)
    return 0


def ls(*, common: Common = DEFAULTS) -> int:
    """List the saved servers.

    One that is ready takes connections; `servers test` looks closer.
    """
    with common.client() as queue:
        servers = saved_servers(queue.session.api)
        rows = [_row(queue, server) for server in servers]
    if servers:
        with ThreadPoolExecutor(len(servers)) as pool:
            reached = pool.map(_listens, servers)
        for row, listens in zip(rows, reached, strict=True):
            if row["state"] == _READY and not listens:
                row["state"] = "does not answer"
    headers = ("ALIAS", "TYPE", "URL", "CARD", "STATE", "RUNNING", "WAITING")
    if not rows:
        common.emit([], "No server is saved. Add one: stablequeue servers add NAME --url URL")
        return 0
    cells = [[str(row[header.lower()]) for header in headers] for row in rows]
    common.emit(rows, lambda target: target.table(headers, cells, flexible=4))
    return 0


def ask(
    *aliases: Annotated[str, Parameter(help="Servers; none: every saved one.")],
    common: Common = DEFAULTS,
) -> int:
    """Ask servers what they are and what they have.

    With -v their models, samplers and schedulers are listed by name. The exit code is 1 when one
    does not answer as it should.
    """
    with common.client() as queue:
        api = queue.session.api
        servers = [saved_server(api, _alias(alias)) for alias in aliases] or saved_servers(api)
    looks = look_at(servers)
    lines: list[str] = []
    for look in looks:
        lines.append(look.line())
        if common.verbose:
            lines += [f"  {kind}: {name}" for kind, names in look.has.items() for name in names]
    data = [look.to_json() for look in looks]
    common.emit(data, "\n".join(lines) or "No server is saved.")
    return 0 if all(look.answers for look in looks) else 1


def rm(
    *aliases: Annotated[str, Parameter(help="Servers.")],
    force: Annotated[bool, Parameter(help="Although jobs wait or run there.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Forget a server; its jobs and pictures stay."""
    if not aliases:
        raise BadRequest("servers rm", "say which; stablequeue servers ls lists them")
    with common.client() as queue:
        api = queue.session.api
        for alias in aliases:
            saved_server(api, _alias(alias))
            if not force and (busy := _count(api, alias, waiting=True, running=True)):
                message = (
                    f"{busy} jobs wait or run on {alias}; cancel them with: stablequeue cancel"
                    f" --all --server {alias}, or use --force"
                )
                raise Refused(message)
        for alias in aliases:
            remove_server(api, alias)
    common.emit({"removed": list(aliases)}, "\n".join(f"{alias} is forgotten" for alias in aliases))
    return 0


def import_(
    file: Annotated[Path, Parameter(help="servers.json of the older StableQueue.")],
    /,
    *,
    type_: Annotated[
        str | None, Parameter(name="--type", help="For entries that do not say: comfyui or forge.")
    ] = None,
    update: Annotated[bool, Parameter(help="Also change servers that are saved already.")] = False,
    dry_run: Annotated[bool, Parameter(help="Say what would be saved, save nothing.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Save the servers of a servers.json."""
    from stablequeue.cli.servers_json import read_servers_json  # noqa: PLC0415

    kind = _kind(type_)
    entries = read_servers_json(file.expanduser())
    configs = [
        checked({**entry, "type": _kind(entry["type"] or kind) or "forge"}) for entry in entries
    ]
    aliases = [config.alias for config in configs]
    if twice := sorted({alias for alias in aliases if aliases.count(alias) > 1}):
        raise BadRequest("file", f"two entries have the alias {twice[0]}; rename one")
    with common.client() as queue:
        api = queue.session.api
        known = {server.alias for server in saved_servers(api)}
        rows: list[dict[str, str]] = []
        for config in configs:
            there = config.alias in known
            if there and not update:
                rows.append({"alias": config.alias, "done": "kept (use --update to change it)"})
                continue
            if not dry_run:
                save_server(api, config)
            done = "changed" if there else "saved"
            rows.append({"alias": config.alias, "done": f"would be {done}" if dry_run else done})
    common.emit(rows, "\n".join(f"{row['alias']} {row['done']}" for row in rows))
    return 0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a server said when it was asked."""

    alias: str
    answers: bool
    code: str = ""
    problem: str = ""
    flavour: str = ""
    version: str = ""
    gpu: str = ""
    queue_length: int = 0
    has: Mapping[str, Sequence[str]]

    def line(self) -> str:
        """Return it in one line."""
        if not self.answers:
            return self.problem
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in self.has.items() if names)
        about = " ".join(filter(None, (self.flavour, self.version, self.gpu)))
        return f"{self.alias}: {about}; {counts or 'no models'}; queue {self.queue_length}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "alias": self.alias,
            "answers": self.answers,
            "code": self.code,
            "problem": self.problem,
            "flavour": self.flavour,
            "version": self.version,
            "gpu": self.gpu,
            "queue_length": self.queue_length,
            "has": {kind: list(names) for kind, names in self.has.items()},
        }


def _with_models(queue: "Client", config: ServerConfig, look: Look) -> tuple[ServerConfig, str]:
    """Return a new server that knows whether it reads the library, and what to say about that."""
    from stablequeue.server_settings import is_loopback  # noqa: PLC0415

    if not look.answers or not is_loopback(config.base_url):
        return config, ""
    listed = [name for kind in _MODEL_LISTS for name in look.has.get(kind, ())]
    reads = queue.models.reads_library(listed)
    if reads:
        same = config.model_copy(update={"models_from": "same"})
        return same, "It lists this library's models: what it lacks is fetched for it."
    if reads is None:
        return config, ""
    change = f"stablequeue servers add {config.alias} --update --models-from same"
    return config, (
        "What it lacks is not fetched, since it does not seem to read the library's folders; if it"
        f" does: {change}"
    )


def look_at(servers: Sequence[ServerConfig]) -> list[Look]:
    """Ask servers at the same time; one that fails does not hide the others."""
    import asyncio  # noqa: PLC0415

    async def ask() -> list[Look]:
        return await asyncio.gather(*(_look(server) for server in servers))

    return asyncio.run(ask())


async def _look(server: ServerConfig) -> Look:
    from dataclasses import asdict  # noqa: PLC0415

    from stablequeue.engines import open_engine  # noqa: PLC0415

    try:
        async with open_engine(server) as engine:
            info = await engine.probe()
            inventory = await engine.inventory()
    except EngineError as error:
        return Look(alias=server.alias, answers=False, code=error.code, problem=str(error), has={})
    return Look(
        alias=server.alias,
        answers=True,
        flavour=info.flavour,
        version=info.version,
        gpu=info.gpu,
        queue_length=info.queue_length,
        has={kind.replace("_", " "): list(names) for kind, names in asdict(inventory).items()},
    )


def checked(fields: Mapping[str, Any]) -> ServerConfig:
    """Return a configuration.

    Raises:
        BadRequest: A field is wrong, or no engine speaks the type. Never quotes a value.
    """
    from stablequeue.engines import engine_types  # noqa: PLC0415

    if fields.get("type") not in engine_types():
        raise BadRequest("--type", f"there is no {fields.get('type')!r}", engine_types())
    try:
        return ServerConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = str(first["msg"]).removeprefix("Value error, ")
        raise BadRequest(field, problem) from None


def _alias(text: str) -> str:
    """Return an alias that can be one; anything else must not get into an address.

    Raises:
        BadRequest: It cannot.
    """
    if not re.fullmatch(ALIAS_PATTERN, text):
        raise BadRequest("alias", "use lower case letters, digits and hyphens, 48 at most")
    return text


def _kind(text: str | None) -> str | None:
    if text is None:
        return None
    name = text.strip().casefold()
    return "forge" if name in _ALSO_FORGE else name


def _asked_type(fields: Mapping[str, Any]) -> str:
    """Find out what a server speaks: the first engine whose probe it answers."""
    from stablequeue.engines import engine_types  # noqa: PLC0415

    problems: list[str] = []
    for kind in engine_types():
        [look] = look_at([checked({**fields, "type": kind})])
        if look.answers or look.code == "engine_auth":
            return kind
        problems.append(look.problem)
    raise BadRequest("--type", f"cannot find it out ({problems[0]}); say it", engine_types())


def _saved(api: "PrefectApi", alias: str) -> ServerConfig | None:
    with suppress(NotFound):
        return saved_server(api, alias)
    return None


def _secret(option: str, value: str | None, common: Common) -> SecretStr | None:
    """Read a secret from stdin, or ask for it; what stands in the command itself is usable too."""
    if value is None:
        return None
    if value != "-":
        common.note(f"note: others on this machine can read the {option} of a command; use -")
        return SecretStr(value)
    if sys.stdin.isatty():
        import getpass  # noqa: PLC0415

        return SecretStr(getpass.getpass(f"{option.lstrip('-')}: "))
    return SecretStr(sys.stdin.readline().rstrip("\r\n"))


def _row(queue: "Client", server: ServerConfig) -> dict[str, Any]:
    api = queue.session.api
    return {
        "alias": server.alias,
        "type": server.type,
        "url": server.base_url,
        "card": server.card,
        "store": server.store,
        "sandbox": server.sandbox,
        "state": standing(queue, server.alias),
        "running": _count(api, server.alias, running=True),
        "waiting": _count(api, server.alias, waiting=True),
    }


def _listens(server: ServerConfig) -> bool:
    """Whether the server takes connections; how much it answers is not asked."""
    url = server.url
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection(((url.host or "").strip("[]"), port), _LISTENS_WITHIN_S).close()
    except OSError:
        return False
    return True


def standing(queue: "Client", alias: str) -> str:
    """Return why a server's jobs do not start, or `ready`."""
    api = queue.session.api
    if parked := queue.session.look.parked().get(alias):
        return f"parked: {parked.reason}"
    try:
        pool, seen = api.pool(alias), api.last_seen(alias)
    except NotFound:
        return "not set up yet"
    if pool.paused:
        return "paused"
    if seen is None or datetime.now(UTC) - seen > _OFFLINE_AFTER:
        return "no worker"
    return _READY


def _count(api: "PrefectApi", alias: str, *, waiting: bool = False, running: bool = False) -> int:
    from stablequeue.prefect_api import StateType, run_filter  # noqa: PLC0415

    states = [StateType.SCHEDULED, StateType.PAUSED] if waiting else []
    if running:
        states += [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    return api.count_runs(run_filter(pools=[alias], states=states))
