"""How our Prefect server, and every process that talks to one, is configured: as environments.

Prefect reads its settings from the environment when it is imported, so each of our processes that
uses Prefect starts with one of these. What the user's shell says about some other Prefect never
reaches them (`clean_environment`), apart from how to log. Why each value: `SERVER` and `CLIENT`.
"""

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import certifi

from stablequeue.errors import SettingsError
from stablequeue.secrets import load_secrets, private_folder, write_private
from stablequeue.settings import Settings

HOST = "127.0.0.1"
ADDRESS_FILE = "prefect.json"
_SHORTEST_RETENTION_S = 3601  # Prefect wants more than an hour
_KEPT = ("PREFECT_LOGGING_", "PREFECT_SERVER_LOGGING_")
_LEASES_ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

SERVER: Mapping[str, str] = {
    "PREFECT_SERVER_API_HOST": HOST,
    # A backlog is normal here. Marking each waiting run late costs a state, an event and 40 ms of
    # CPU apiece, and on SQLite it makes lock errors by the thousand.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    # Stored events are 200 of the 245 KiB a finished job costs. Without the store, events still
    # reach subscribers and triggers; only the UI's event feed stays empty.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true",
    # One by one, each state of each task is a transaction of its own: a quarter of the server's
    # CPU a job. Together they are one or two, and tasks appear in the UI a second later. (Whole
    # seconds: a part of one is cut off, and without a pause it would flush in an endless loop.)
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",  # seconds are refused here
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    # In memory, a restarted server forgets who holds a concurrency slot, and it stays taken.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES_ON_DISK,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The UI asks the origin it came from, so that it also works through a tunnel.
    "PREFECT_SERVER_UI_API_URL": "/api",
    "DO_NOT_TRACK": "1",
}
"""Settings of our own server, beside those that depend on where it keeps things."""

CLIENT: Mapping[str, str] = {
    # Events wake our worker at once; this is the net below them.
    "PREFECT_WORKER_QUERY_SECONDS": "10",
    # Taking a run before it is due would hold a place in its pool meanwhile.
    "PREFECT_WORKER_PREFETCH_SECONDS": "0",
    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    # A run's log shows what was said to its server; outside a run our lines go nowhere but to the
    # process's own output, and Prefect would warn about each.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "stablequeue",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}
"""Settings of every worker and flow run."""


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `environment` (default: this process's) without another Prefect's settings."""
    given = os.environ if environment is None else environment
    return {
        name: value
        for name, value in given.items()
        if not name.upper().startswith("PREFECT_") or name.upper().startswith(_KEPT)
    }


def prefect_home(settings: Settings) -> Path:
    """Return the folder of our Prefect server and its clients; only its owner can enter it."""
    private_folder(settings.home)
    folder = private_folder(settings.home / "prefect")
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def server_environment(settings: Settings, *, port: int | None = None) -> dict[str, str]:
    """Return what the process of our Prefect server needs in its environment.

    Args:
        settings: This installation's.
        port: The port it has bound; default: the one the settings name.
    """
    secrets = load_secrets(settings)
    home = prefect_home(settings)
    bound = settings.prefect_port if port is None else port
    kept = max(_SHORTEST_RETENTION_S, int(timedelta(days=settings.keep_runs_days).total_seconds()))
    origins = ",".join(f"http://{host}:{bound}" for host in (HOST, "localhost"))
    return {
        **SERVER,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_API_PORT": str(bound),
        "PREFECT_API_URL": f"http://{HOST}:{bound}/api",
        "PREFECT_SERVER_API_AUTH_STRING": secrets.auth.get_secret_value(),
        "PREFECT_API_AUTH_STRING": secrets.auth.get_secret_value(),
        "PREFECT_SERVER_ENCRYPTION_KEY": secrets.encryption_key.get_secret_value(),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(kept),
    }


def client_environment(settings: Settings) -> dict[str, str]:
    """Return what a worker, a flow run or Prefect's own CLI needs to reach the server.

    The server need not run yet, unless its port is chosen freely (`prefect_port: 0`).

    Raises:
        SettingsError: The address is not known, or the secrets cannot be read.
    """
    home = prefect_home(settings)
    url = api_url(settings)
    environment = {
        **CLIENT,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": url,
    }
    if auth := api_auth(settings):
        environment["PREFECT_API_AUTH_STRING"] = auth
    if urlsplit(url).scheme == "http":
        # Every client Prefect opens loads the whole bundle of certificates, 20 ms of CPU each,
        # also for plain http. One certificate does as well there.
        environment["PREFECT_API_SSL_CERT_FILE"] = str(_one_certificate(home))
    if not settings.prefect_api_url:  # the same release on both sides, without CSRF tokens
        environment["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = "false"
        environment["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "false"
    return environment


def api_url(settings: Settings) -> str:
    """Return the URL of Prefect's API: somebody else's, or our own server's as it runs.

    Raises:
        SettingsError: Our own server has a free port and does not run, so there is no address.
    """
    if settings.prefect_api_url:
        return settings.prefect_api_url.rstrip("/")
    if running := running_url(settings):
        return running
    if settings.prefect_port:
        return f"http://{HOST}:{settings.prefect_port}/api"
    message = "the Prefect server has a free port and does not run; start it with: stablequeue up"
    raise SettingsError(message)


def api_auth(settings: Settings) -> str:
    """Return USER:PASSWORD for Prefect's API; empty for a foreign server without one."""
    if settings.prefect_auth.get_secret_value() or settings.prefect_api_url:
        return settings.prefect_auth.get_secret_value()
    return load_secrets(settings).auth.get_secret_value()


def running_url(settings: Settings) -> str:
    """Return the API's URL that our server wrote down when it started; empty: none did."""
    try:
        data = json.loads((settings.run_folder / ADDRESS_FILE).read_text(encoding="utf-8"))
        url, pid = str(data["url"]), int(data["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return url if _alive(pid) else ""  # else somebody else's program may have the port by now


def write_address(settings: Settings, url: str) -> None:
    """Tell other processes where our server is reached."""
    private_folder(settings.run_folder)
    write_private(
        settings.run_folder / ADDRESS_FILE, json.dumps({"url": url, "pid": os.getpid()}) + "\n"
    )


def forget_address(settings: Settings) -> None:
    """Take back what `write_address` told."""
    (settings.run_folder / ADDRESS_FILE).unlink(missing_ok=True)


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine only."""
    return (urlsplit(url).hostname or "") in _LOOPBACK


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # there is no harmless way to ask
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _one_certificate(home: Path) -> Path:
    path = home / "one-certificate.pem"
    if not path.exists():
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        _, _, rest = certifi.contents().partition(begin)
        body, found, _ = rest.partition(end)
        if not found:
            message = "certifi holds no certificate; reinstall it: pip install --force certifi"
            raise SettingsError(message)
        write_private(path, f"{begin}{body}{end}\n")
    return path
