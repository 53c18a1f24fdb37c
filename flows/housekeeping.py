"""Flow `housekeeping`: the trash and leftovers, on a schedule."""

from prefect import flow

from tasks.housekeeping import tidy


@flow(name="housekeeping", persist_result=False)
async def housekeeping() -> str:
    """Remove for good what lay in the trash long enough, and results nobody stored."""
    return await tidy()
