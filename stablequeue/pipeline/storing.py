"""Store what lies in the spool: files, thumbnails, one catalogue transaction per picture.

Safe to repeat: names follow from the job, equal bytes are written once, and the catalogue keeps
one row per (job, picture, ordinal) whichever attempt brought it.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from stablequeue.catalogue import Asset, Attempt, AttemptState, NewAsset
from stablequeue.engines.base import RawAsset, RawResult, Resolution
from stablequeue.errors import JobFailed, QueueError, ResultLost, StoreUnavailable
from stablequeue.model_names import model_key
from stablequeue.pipeline.job import Job, logger
from stablequeue.pipeline.spool import attempt_folder, disk_trouble, read_result, remove_attempts
from stablequeue.prompts.comfy_graph import summarise
from stablequeue.request import Mode
from stablequeue.storage import (
    Sniffed,
    can_reencode,
    file_sha256,
    make_thumbnail,
    read_metadata,
    readable_key,
    reencode,
    sniff,
)

_LARGEST_KEPT = 2**63 - 1
"""What a column of whole numbers holds; ComfyUI takes seeds up to twice that."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a job has brought into the store so far.

    Attributes:
        assets: By picture and ordinal, those of earlier runs included.
        warnings: What makes the job Degraded; one line each.
        censored: A server withheld or blanked something.
    """

    assets: tuple[Asset, ...]
    warnings: tuple[str, ...]
    censored: bool


async def store(job: Job) -> Stored:
    """Store every picture that lies complete in the spool.

    Raises:
        StoreUnavailable: The store does not take it now; the spool keeps it.
        JobFailed: A file the server made cannot be read as what it claims to be.
        ResultLost: A result was fetched, and is not in the spool of this host any more.
    """
    censored = False
    stored: set[int] = set()
    for index in range(job.request.count):
        attempt = await job.call(lambda index=index: job.catalogue.last_attempt(job.id, index))
        if attempt is None:
            continue
        folder = attempt_folder(job.spool, index, attempt.attempt)
        if attempt.state is AttemptState.STORED:
            stored.add(index)
            await job.call(lambda index=index: remove_attempts(job.spool, index))
        if attempt.state is not AttemptState.COLLECTED:
            continue
        result = await job.call(lambda folder=folder: read_result(folder))
        if result is None:
            raise ResultLost(
                attempt.server,
                f"the result of picture {index + 1} is not in {folder} any more (damaged, or on"
                " another host). Look for it on the server again with: stablequeue retry",
            )
        await _store_result(job, attempt, result)
        censored = censored or result.censored
        await job.call(lambda index=index: remove_attempts(job.spool, index))
    assets = await job.call(lambda: job.catalogue.assets(job.id))
    _remove_if_empty(job.spool)
    warnings = [*job.warnings, *(warning for asset in assets for warning in asset.warnings)]
    # An earlier run stored what is left of a picture that was withheld: nothing.
    censored = censored or bool(stored - {asset.index for asset in assets})
    return Stored(tuple(assets), tuple(dict.fromkeys(warnings)), censored)


async def _store_result(job: Job, attempt: Attempt, result: RawResult) -> None:
    if not result.assets and not result.censored:
        error = JobFailed(job.server.alias, f"picture {attempt.index}: it made no file at all")
        await job.call(
            lambda: job.catalogue.update_attempt(
                attempt.id, AttemptState.FAILED, note=str(error), error=error.code
            )
        )
        raise error
    try:
        await job.call(lambda: _store_files(job, attempt, result))
    except StoreUnavailable:
        raise
    except OSError as error:
        raise disk_trouble(error) from error
    except JobFailed as error:
        failed = str(error)
        await job.call(
            lambda: job.catalogue.update_attempt(attempt.id, AttemptState.FAILED, note=failed)
        )
        raise
    logger.info("picture %d stored", attempt.index)


def _store_files(job: Job, attempt: Attempt, result: RawResult) -> None:
    files = [_prepare(job, attempt, result, ordinal) for ordinal in range(len(result.assets))]
    # Two jobs with equal bytes share one file: look and write under one lock until the catalogue
    # has counted it. Sorted, so that two processes never wait for each other.
    job.settings.locks.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for name in sorted({blob_lock_name(file.sha256) for file in files}):
            held.enter_context(FileLock(job.settings.locks / name))
        lies: dict[str, tuple[str, int]] = {}  # one picture may bring the same bytes twice
        for file in files:
            if file.sha256 not in lies:
                lies[file.sha256] = _put(job, attempt, file)
        job.catalogue.record_assets(
            attempt.id, [_asset(job, attempt, result, file, lies[file.sha256]) for file in files]
        )


def blob_lock_name(sha256: str) -> str:
    """Return the lock file under which equal bytes are written, counted and removed."""
    return f"blob-{sha256[:2]}.lock"


@dataclass(frozen=True, slots=True)
class _File:
    """A checked file, encoded as it will be stored."""

    raw: RawAsset
    ordinal: int
    seed: int
    path: Path
    sniffed: Sniffed
    sha256: str
    original_sha256: str
    infotext: str
    warnings: tuple[str, ...]


def _prepare(job: Job, attempt: Attempt, result: RawResult, ordinal: int) -> _File:
    """Check that a spooled file is what it claims, encode it as wanted, make its thumbnail."""
    raw = result.assets[ordinal]
    try:
        sniffed = sniff(raw.path)
        original = sha256 = file_sha256(raw.path)
        infotext = raw.infotext or read_metadata(raw.path).infotext
        path, warnings = raw.path, list[str]()
        wanted = job.request.output
        if wanted.format != "original" and can_reencode(sniffed, wanted.format):
            path = raw.path.with_name(f"stored-{ordinal}.{wanted.format}")
            made = reencode(raw.path, path, format=wanted.format, quality=wanted.quality)
            sniffed, sha256 = made.file, file_sha256(path)
            if made.dropped:
                left_out = ", ".join(made.dropped)
                warnings.append(f"not kept in the {wanted.format}, for lack of room: {left_out}")
        thumbnail = job.settings.thumbnails / sha256[:2] / f"{sha256}.webp"
        if not _has_content(thumbnail):
            make_thumbnail(path, thumbnail)  # reads every pixel: a picture cut off fails here
    except StoreUnavailable:
        raise
    except QueueError as error:
        raise JobFailed(
            attempt.server, f"picture {attempt.index + 1}: the file it made is damaged: {error}"
        ) from error
    seed = _seed(job, attempt, result.effective)
    return _File(raw, ordinal, seed, path, sniffed, sha256, original, infotext, tuple(warnings))


def _seed(job: Job, attempt: Attempt, effective: Mapping[str, Any]) -> int:
    """Return the seed a picture was made with; -1: a number the catalogue has no room for."""
    made = effective.get("seed") if job.request.mode is Mode.WORKFLOW else None
    if not isinstance(made, int):
        return job.stored.seed + attempt.index
    return made if 0 <= made <= _LARGEST_KEPT else -1


def _has_content(path: Path) -> bool:
    """Whether a file is there and not empty, as a power cut may leave one."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _put(job: Job, attempt: Attempt, file: _File) -> tuple[str, int]:
    """Have the file's bytes in the store; return their key, and the blob's id if they lay there."""
    known = job.catalogue.blob(job.store.name, file.sha256)
    if known is not None and job.store.exists(known.key, sha256=file.sha256):
        return known.key, known.id
    if known is None:
        wanted = readable_key(
            job.stored.accepted_at,
            job.request.prompt or job.request.mode.value,
            seed=file.seed,
            job_id=job.id,
            index=attempt.index,
            ordinal=file.ordinal,
            suffix=file.sniffed.suffix,
        )
    else:
        wanted = known.key  # somebody deleted or changed it: mended for those who refer to it too
    put = job.store.put(file.path, wanted, sha256=file.sha256, mime=file.sniffed.mime)
    if known is not None and put.key != known.key:
        job.catalogue.move_blob(known, put.key)
    return put.key, 0


def _asset(
    job: Job, attempt: Attempt, result: RawResult, file: _File, lies: tuple[str, int]
) -> NewAsset:
    key, blob_id = lies
    sniffed = file.sniffed
    effective = result.effective
    here = attempt.server == job.server.alias  # else an earlier run fetched it from another
    info = job.info if here else None
    return NewAsset(
        ordinal=file.ordinal,
        kind=sniffed.kind,
        mime=sniffed.mime,
        sha256=file.sha256,
        size=file.path.stat().st_size,
        width=sniffed.width,
        height=sniffed.height,
        store=job.store.name,
        key=key,
        blob_id=blob_id,
        name=file.raw.name[:300],
        infotext=file.infotext,
        prompt=_prompt(job),
        params=_parameters(job, result, file, here=here),
        models=used_models(effective, job.resolution if here else None),
        seed=file.seed,
        engine=attempt.engine,
        engine_version=str(effective.get("version") or (info.version if info else "")),
        gpu=str(effective.get("gpu") or (info.gpu if info else "")),
        server=attempt.server,
        original_sha256=file.original_sha256,
        warnings=(*result.warnings, *file.warnings),
    )


def _prompt(job: Job) -> str:
    """Return what a picture of a workflow shows that the request has in a form of its own."""
    if job.resolution is None or job.request.prompt:
        return ""
    return summarise(job.resolution.graph).prompt


def _parameters(job: Job, result: RawResult, file: _File, *, here: bool) -> dict[str, Any]:
    request = job.request.dumped()
    if not job.request.keeps_own_seeds:  # else it would replace every seed of the workflow
        request["seed"] = file.seed
    return {
        "request": request,
        "resolution": job.resolution.to_json() if job.resolution and here else {},
        "effective": result.effective,
        "meta": file.raw.meta,
        "sandbox": bool(job.info and job.info.sandbox),
    }


def used_models(effective: Mapping[str, Any], resolution: Resolution | None) -> dict[str, str]:
    """Return the models a picture was made with: name -> hash, "" where nobody tells it.

    Args:
        effective: What the server says it used; `models` is a list of names, or names and hashes.
        resolution: What was asked of it, under its own names.
    """
    told: Any = effective.get("models")
    models: dict[str, str] = {}
    if isinstance(told, Mapping):
        models = {
            str(name): str(digest) for name, digest in cast("Mapping[Any, Any]", told).items()
        }
    elif isinstance(told, list):
        models = dict.fromkeys(map(str, cast("list[Any]", told)), "")
    if resolution is not None:
        known = {model_key(name) for name in models}
        named = (
            resolution.checkpoint,
            resolution.unet,
            *resolution.text_encoders,
            resolution.vae,
            *(lora.name for lora in resolution.loras),
        )
        models |= {name: "" for name in named if name and model_key(name) not in known}
    return models


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not empty, or never made
