"""What was generated at first start: Prefect's auth string and its encryption key.

Without the auth string any web page the user opens could read block secrets from Prefect's API on
loopback; without a key of our own, Prefect keeps one in the database beside what it encrypts. Both
live in one file only its owner can read, and reach other processes through their environment.
"""

import base64
import json
import os
import secrets as randomness
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import SecretStr

from stablequeue.errors import SettingsError
from stablequeue.settings import Settings

USER = "stablequeue"
_OWNER_ONLY = 0o600
_LOCK_S = 30.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """This installation's generated secrets; neither shows in a repr.

    Attributes:
        auth: USER:PASSWORD of our own Prefect server's API.
        encryption_key: Fernet key (32 bytes, base64url) for the secrets in its blocks.
    """

    auth: SecretStr
    encryption_key: SecretStr


def load_secrets(settings: Settings) -> Secrets:
    """Return this installation's secrets, generating them the first time.

    Processes that come at the same time get the same ones.

    Raises:
        SettingsError: The file cannot be read, written or understood.
    """
    path = settings.secrets_file
    if (found := _read(path)) is not None:
        return found
    try:
        private_folder(path.parent)
        with FileLock(path.with_name(path.name + ".lock"), timeout=_LOCK_S):
            if (found := _read(path)) is not None:
                return found
            made = _generate()
            _write(path, made)
            return made
    except OSError as error:
        message = f"cannot write {path} ({error.strerror or error}); choose another folder with"
        raise SettingsError(f"{message} --home or STABLEQUEUE_HOME") from error


def private_folder(path: Path) -> Path:
    """Make the folder `path` if need be; a new one can be entered by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace the file `path` in one step by one that only its owner can read."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _generate() -> Secrets:
    key = base64.urlsafe_b64encode(randomness.token_bytes(32)).decode()
    return Secrets(
        auth=SecretStr(f"{USER}:{randomness.token_urlsafe(32)}"), encryption_key=SecretStr(key)
    )


def _write(path: Path, made: Secrets) -> None:
    data = {
        "prefect_auth": made.auth.get_secret_value(),
        "prefect_encryption_key": made.encryption_key.get_secret_value(),
    }
    write_private(path, json.dumps(data, indent=2) + "\n")


def _read(path: Path) -> Secrets | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {path}; it must be a file that you own"
        raise SettingsError(message) from error
    try:
        data = json.loads(text)
        auth, key = data["prefect_auth"], data["prefect_encryption_key"]
        fits = ":" in auth and len(base64.urlsafe_b64decode(key)) == 32  # noqa: PLR2004  Fernet's
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(_damaged(path)) from error
    if not fits:
        raise SettingsError(_damaged(path))
    if os.name == "posix" and path.stat().st_mode & 0o077:
        path.chmod(_OWNER_ONLY)
    return Secrets(auth=SecretStr(auth), encryption_key=SecretStr(key))


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged; restore it from a backup (without it, secrets saved in Prefect's"
        " blocks cannot be read), or move it away to start anew and save the servers again"
    )
