"""Task `look`: what the flow `check-models` does."""

import asyncio
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from stablequeue.models.recorded import recorded
from stablequeue.models.sources.civitai import Civitai
from stablequeue.models.updates import Update, check_updates
from stablequeue.settings import load
from tasks.policy import RETRY_DELAYS_S, worth_retrying

ARTIFACT = "model-updates"


@task(
    name="look",
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def look() -> str:
    """Ask Civitai once for each model of the library; leave a table of what is newer.

    Raises:
        SourceUnreachable: Retryable.
        RateLimited: Retryable, later.
    """
    settings = load()
    files = await asyncio.to_thread(recorded, settings)
    if not files:
        return "no models are in the library; nobody was asked"
    async with Civitai(settings.sources.civitai, settings.source_answers / "civitai") as civitai:
        report = await check_updates(civitai, files)
    said = f"{len(report.updates)} newer versions of {report.checked} models"
    for one in report.updates:
        get_run_logger().info("%s: %s %s is newer", one.file.name, one.model, one.name)
    for model_id, why in report.problems:
        get_run_logger().warning("model %d was not looked at: %s", model_id, why)
    if report.updates:
        await acreate_table_artifact(
            [_row(one) for one in report.updates],
            key=ARTIFACT,
            description=f"{said}. One is fetched by: stablequeue models update FILE",
        )
    return said


def _row(update: Update) -> dict[str, Any]:
    return {
        "file": update.file.name,
        "model": update.model,
        "newer": update.name,
        "base model": update.base_model,
        "published": update.published[:10],
        "early access": "yes" if update.early_access else "",
        "reference": update.reference,
    }
