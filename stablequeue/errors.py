"""Every failure this project expects, as one tree.

::

    QueueError
    ├── BadRequest              the request itself is wrong; names the field
    ├── SettingsError           a setting or the configuration file is wrong
    ├── NotFound                no such job, picture, server or store
    ├── Refused                 the command does not fit the state of things
    ├── UnreadableFile          a picture, a model file or its metadata is damaged or cut off
    ├── FileInUse               (retryable) a model file is still being written
    ├── Stopped                 somebody asked to stop what was being done
    ├── EngineError             a generation server
    │   ├── EngineUnreachable   (retryable) no connection, or it broke
    │   ├── EngineBusy          (retryable) it answers, but cannot take work now
    │   ├── EngineStalled       (retryable) it stopped making progress
    │   ├── EngineAuthFailed    it refused our credentials
    │   ├── JobRejected         it will not take this job
    │   │   ├── ModelMissing    it lacks a model the job names
    │   │   ├── NotDelivered    a model is in the library, and its files do not reach the server
    │   │   ├── NotFetched      a model the job needs could not be fetched
    │   │   └── Unsupported     it cannot do what the job asks
    │   ├── JobFailed           it ran the job and failed
    │   │   ├── OutOfMemory     the card has not enough memory
    │   │   ├── WrongModel      the picture was made with another model than asked
    │   │   └── Interrupted     (retryable) somebody else stopped it there
    │   ├── ResultLost          (retryable) it ran, and the result can no longer be had
    │   └── ProtocolError       it answered something no server of its kind should
    ├── StoreError              where pictures go
    │   ├── StoreUnavailable    disk full, credentials, outage: parks the server's jobs
    │   └── UnsafeName          a name that would leave the folder
    ├── DownloadError           fetching a model file, or asking where it is
    │   ├── SourceUnreachable   (retryable) no connection, it broke too often, or a fault there
    │   ├── RateLimited         (retryable, after `retry_at`) too many requests or downloads
    │   ├── DownloadBusy        (retryable) another process fetches the same file
    │   ├── LoginNeeded         an account's key is needed, or ours is not accepted
    │   ├── AccessDenied        this account or address may not have it
    │   ├── DownloadDisabled    its creator offers no download
    │   ├── EarlyAccess         for sale until a date, free for all then
    │   ├── ModelGone           no such model or file, or no longer
    │   ├── RegionBlocked       not for this country
    │   ├── UnsafeAddress       an address we do not go to
    │   ├── NoSuitableFile      the model has no file that may be taken
    │   ├── NotAModelFile       a page, an error or another kind of file instead of the model
    │   ├── WrongBytes          not the size or the SHA-256 that was promised
    │   ├── DiskFull            not enough room for it
    │   └── TargetTaken         another file has its name, or it cannot be written there
    ├── CatalogueError          our own database
    │   ├── CatalogueBusy       (retryable) locked for longer than we wait
    │   └── CatalogueTooNew     written by a newer release
    └── PrefectError            Prefect's API
        ├── PrefectUnreachable  (retryable) no connection
        └── PrefectRefused      it answered with a refusal

`retryable` says whether asking again, unchanged, may help; the task layer obeys it and nothing
else lists exception types. `code` is stable and is what the catalogue and `--json` show. A message
is one line and ends with what to do next where there is something to do. All arguments go to
`Exception.__init__`, so every error survives pickling between processes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from stablequeue.hiding import without_secrets


class QueueError(Exception):
    """Root of every failure we expect; `str()` of it is one line for a person.

    What others say is often part of the message, so secrets are taken out of it here, by
    `stablequeue.hiding`.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_secrets(a) if isinstance(a, str) else a for a in args))


class BadRequest(QueueError):
    """The request is refused before a run exists.

    Args:
        field: Dotted path of the field, e.g. `loras.0.weight`.
        problem: What is wrong with the value.
        allowed: What would be accepted, if that can be listed.
    """

    code = "bad_request"

    def __init__(self, field: str, problem: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(field, problem, tuple(allowed))
        self.field, self.problem, self.allowed = field, str(self.args[1]), tuple(allowed)

    def __str__(self) -> str:
        listed = f" Allowed: {', '.join(self.allowed)}." if self.allowed else ""
        return f"{self.field}: {self.problem.rstrip('.')}.{listed}"


class SettingsError(QueueError):
    """A setting is wrong; the message names it and where it came from."""

    code = "settings"


class NotFound(QueueError):
    """No such job, picture, server or store; the message says how to list them."""

    code = "not_found"


class Refused(QueueError):
    """The command does not fit the state of things, e.g. retrying a finished job."""

    code = "refused"


class UnreadableFile(QueueError):
    """A file, or what is embedded in it, is damaged, cut off, too large or of another kind."""

    code = "unreadable_file"


class FileInUse(QueueError):
    """A model file changed while it was read: somebody is still writing it."""

    code = "file_in_use"
    retryable = True


class Stopped(QueueError):
    """Somebody asked to stop what was being done; nothing is wrong."""

    code = "stopped"


class EngineError(QueueError):
    """Something about a generation server.

    Args:
        server: Its alias.
        detail: What happened, and what to do about it.
    """

    code = "engine"

    def __init__(self, server: str, detail: str) -> None:
        super().__init__(server, detail)
        self.server, self.detail = server, str(self.args[1])

    def __str__(self) -> str:
        return f"{self.server}: {self.detail}"


class EngineUnreachable(EngineError):
    """No connection, or it broke before an answer."""

    code = "engine_unreachable"
    retryable = True


class EngineBusy(EngineError):
    """It answers, but cannot take work now (still starting, for example)."""

    code = "engine_busy"
    retryable = True


class EngineStalled(EngineError):
    """No progress for longer than the step time explains."""

    code = "engine_stalled"
    retryable = True


class EngineAuthFailed(EngineError):
    """401 or 403: the credentials saved for the server are not accepted."""

    code = "engine_auth"


class JobRejected(EngineError):
    """The server will not take this job; asking again will not help."""

    code = "job_rejected"


class ModelMissing(JobRejected):
    """The server lacks a model the job names.

    Args:
        server: Alias of the server.
        field: The request's field, e.g. `checkpoint` or `loras.0.name`.
        name: The reference as the request gave it.
        suggestions: Names on that server that look alike; never used silently.
        also: What else it lacks, if it was looked up.
    """

    code = "model_missing"

    def __init__(
        self,
        server: str,
        field: str,
        name: str,
        suggestions: Sequence[str] = (),
        also: "Sequence[ModelMissing]" = (),
    ) -> None:
        self.field, self.name, self.suggestions = field, name, tuple(suggestions)
        self.also = tuple(also)
        everywhere = server == "any"
        if self.suggestions:
            advice = f"Did you mean: {', '.join(self.suggestions)}?"
        else:
            which = "" if everywhere else f" {server}"
            advice = f"What there is: stablequeue servers test{which} -v"
        # A prompt names models only by its LoRA tags.
        kind = "LoRA " if field in {"prompt", "negative_prompt"} else ""
        where = "any server" if everywhere else "this server"
        more = "".join(f" Nor is there {one.field} {one.name!r}." for one in self.also)
        super().__init__(server, f"{field}: there is no {kind}{name!r} on {where}.{more} {advice}")
        self.args = (server, field, name, tuple(suggestions), self.also)

    @classmethod
    def of(cls, missing: "Sequence[ModelMissing]") -> "ModelMissing":
        """Return all that one server lacks as one error, about the first of them."""
        first = missing[0]
        return cls(first.server, first.field, first.name, first.suggestions, tuple(missing[1:]))


class NotDelivered(JobRejected):
    """The library has, or would get, a model that does not reach this server.

    Args:
        server: Alias of the server.
        detail: Which file, and what to set or to look at.
    """

    code = "not_delivered"


class NotFetched(JobRejected):
    """A model the job needs could not be fetched; asking again, unchanged, will not help.

    Args:
        server: Alias of the server it was for.
        detail: Which model, why not, and what to do about it.
    """

    code = "not_fetched"


class Unsupported(JobRejected):
    """The server cannot do what the job asks.

    Args:
        server: Alias of the server.
        field: The request's field, e.g. `sampler`.
        problem: Why not.
        allowed: What it offers instead, if that can be listed.
    """

    code = "unsupported"

    def __init__(self, server: str, field: str, problem: str, allowed: Sequence[str] = ()) -> None:
        self.field, self.problem, self.allowed = field, problem, tuple(allowed)
        listed = f" It offers: {', '.join(self.allowed)}." if self.allowed else ""
        super().__init__(server, f"{field}: {problem.rstrip('.')}.{listed}")
        self.args = (server, field, problem, tuple(allowed))


class JobFailed(EngineError):
    """The server ran the job and failed; the detail carries its own words."""

    code = "job_failed"


class OutOfMemory(JobFailed):
    """The card has not enough memory for this job."""

    code = "out_of_memory"


class WrongModel(JobFailed):
    """The picture was made with another model, sampler or LoRA than asked: never stored."""

    code = "wrong_model"


class Interrupted(JobFailed):
    """Somebody else stopped our job on the server."""

    code = "interrupted"
    retryable = True


class ResultLost(EngineError):
    """The job ran, but its result can no longer be fetched."""

    code = "result_lost"
    retryable = True


class ProtocolError(EngineError):
    """An answer that no server of this kind should give."""

    code = "protocol"


class StoreError(QueueError):
    """Something about where pictures go.

    Args:
        store: Name of the store.
        detail: What happened, and what to do about it.
    """

    code = "store"

    def __init__(self, store: str, detail: str) -> None:
        super().__init__(store, detail)
        self.store, self.detail = store, str(self.args[1])

    def __str__(self) -> str:
        return f"store {self.store}: {self.detail}"


class StoreUnavailable(StoreError):
    """Disk full, credentials refused, outage: the server's jobs are parked, not failed."""

    code = "store_unavailable"


class UnsafeName(StoreError):
    """A name from outside that would leave the store's folder."""

    code = "unsafe_name"


class DownloadError(QueueError):
    """Something about fetching a model file, or about asking a source where it is.

    Args:
        source: Who was asked: `civitai`, `huggingface` or a host's name.
        detail: What happened, and what to do about it.
    """

    code = "download"

    def __init__(self, source: str, detail: str) -> None:
        super().__init__(source, detail)
        self.source, self.detail = source, str(self.args[1])

    def __str__(self) -> str:
        return f"{self.source}: {self.detail}"


class SourceUnreachable(DownloadError):
    """No connection, one that broke or stalled too often, or a fault of theirs (5xx)."""

    code = "source_unreachable"
    retryable = True


class RateLimited(DownloadError):
    """Too many requests or downloads; asking before `retry_at` makes it worse.

    Args:
        source: Who was asked.
        detail: What happened.
        retry_at: When asking again is welcome, in UTC; None if it did not say.
    """

    code = "rate_limited"
    retryable = True

    def __init__(self, source: str, detail: str, retry_at: datetime | None = None) -> None:
        super().__init__(source, detail)
        self.retry_at = retry_at
        self.args = (source, self.detail, retry_at)

    def __str__(self) -> str:
        when = f" Again at {self.retry_at:%Y-%m-%d %H:%M:%S} UTC." if self.retry_at else ""
        return f"{super().__str__()}{when}"


class DownloadBusy(DownloadError):
    """Another process is fetching the same file, or another file to the same path."""

    code = "download_busy"
    retryable = True


class LoginNeeded(DownloadError):
    """An account's key is needed; without one, or with a wrong one, asking again is useless."""

    code = "login_needed"


class AccessDenied(DownloadError):
    """This account or address may not have it."""

    code = "access_denied"


class DownloadDisabled(DownloadError):
    """The creator lets it be used on the site only; a key does not help."""

    code = "download_disabled"


class EarlyAccess(DownloadError):
    """For sale until a date, free for all after it.

    Args:
        source: Who was asked.
        detail: What happened.
        until: When it becomes free, in UTC; None if never or not told.
    """

    code = "early_access"

    def __init__(self, source: str, detail: str, until: datetime | None = None) -> None:
        super().__init__(source, detail)
        self.until = until
        self.args = (source, self.detail, until)

    def __str__(self) -> str:
        when = f" It becomes free at {self.until:%Y-%m-%d %H:%M} UTC." if self.until else ""
        return f"{super().__str__()}{when}"


class ModelGone(DownloadError):
    """There is no such model, version or file, or it was removed or archived."""

    code = "model_gone"


class RegionBlocked(DownloadError):
    """The source does not serve the country this machine is in."""

    code = "region_blocked"


class UnsafeAddress(DownloadError):
    """An address outside the allow-list, not https, or inside a private network."""

    code = "unsafe_address"


class NoSuitableFile(DownloadError):
    """The model has no file that may be taken: only training data, pickles, or none at all."""

    code = "no_suitable_file"


class NotAModelFile(DownloadError):
    """What came instead of the model is a web page, an error message or another kind of file."""

    code = "not_a_model_file"


class WrongBytes(DownloadError):
    """The whole file came, but not with the size or the SHA-256 that was promised."""

    code = "wrong_bytes"


class DiskFull(DownloadError):
    """Not enough room in the folder for the file and the margin that is kept free."""

    code = "disk_full"


class TargetTaken(DownloadError):
    """Another file has the name already, or the folder cannot be written."""

    code = "target_taken"


class CatalogueError(QueueError):
    """Something about our own database."""

    code = "catalogue"


class CatalogueBusy(CatalogueError):
    """Locked by other writers for longer than we wait."""

    code = "catalogue_busy"
    retryable = True


class CatalogueTooNew(CatalogueError):
    """Written by a newer release than this one."""

    code = "catalogue_too_new"


class PrefectError(QueueError):
    """Something about Prefect's API."""

    code = "prefect"


class PrefectUnreachable(PrefectError):
    """No connection to Prefect's API."""

    code = "prefect_unreachable"
    retryable = True


class PrefectRefused(PrefectError):
    """Prefect's API answered with a refusal; the message carries its reason."""

    code = "prefect_refused"
