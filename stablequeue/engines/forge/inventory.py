"""What a server has, under its own exact names."""

from stablequeue.engines.base import Inventory
from stablequeue.engines.forge.answers import ModelFile
from stablequeue.engines.forge.names import path
from stablequeue.engines.forge.session import Session


async def read_inventory(session: Session) -> Inventory:
    """List everything; on Forge any checkpoint file may also be a separate image model."""
    client = session.client
    checkpoints = tuple(entry.title for entry in await session.checkpoints())
    modules = await client.modules()
    loras = await client.loras() or []
    embeddings = await client.embeddings()
    schedulers = await client.schedulers() or []
    if modules is None:
        vaes = tuple(file.model_name for file in await client.vaes() or [])
        encoders = tuple[str, ...]()
    else:
        vaes = tuple(file.model_name for file in modules if not _is_in(file, "text_encoder"))
        encoders = tuple(file.model_name for file in modules if not _is_in(file, "vae"))
    return Inventory(
        checkpoints=checkpoints,
        unets=() if modules is None else checkpoints,
        text_encoders=encoders,
        vaes=vaes,
        loras=tuple(entry.name for entry in loras),
        upscalers=tuple(await client.upscalers()),
        embeddings=(*embeddings.loaded, *embeddings.skipped) if embeddings else (),
        samplers=tuple(entry.name for entry in await client.samplers()),
        schedulers=tuple(entry.label or entry.name for entry in schedulers),
    )


def _is_in(file: ModelFile, folder: str) -> bool:
    """Whether a file lies in a folder of that name; one in neither may be either."""
    return any(part.casefold() == folder for part in path(file.filename).split("/")[:-1])
