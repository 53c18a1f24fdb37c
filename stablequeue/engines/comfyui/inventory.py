"""What a server has: the choices of its own loader nodes, which are what it will accept."""

from collections.abc import Iterable

from stablequeue.engines.base import Inventory
from stablequeue.engines.comfyui.answers import NodeClass
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.engines.comfyui.together import together

# Inventory's field -> (node class, input, model folder for servers without that class).
LISTS: dict[str, tuple[str, str, str]] = {
    "checkpoints": ("CheckpointLoaderSimple", "ckpt_name", "checkpoints"),
    "unets": ("UNETLoader", "unet_name", "diffusion_models"),
    "text_encoders": ("CLIPLoader", "clip_name", "text_encoders"),
    "vaes": ("VAELoader", "vae_name", "vae"),
    "loras": ("LoraLoader", "lora_name", "loras"),
    "upscalers": ("UpscaleModelLoader", "model_name", "upscale_models"),
    "samplers": ("KSampler", "sampler_name", ""),
    "schedulers": ("KSampler", "scheduler", ""),
}


async def node_classes(client: ComfyClient, names: Iterable[str]) -> dict[str, NodeClass | None]:
    """Describe node classes, some requests at a time; None for those the server lacks."""
    wanted = list(dict.fromkeys(names))
    described = await together(client.node_class(name) for name in wanted)
    return dict(zip(wanted, described, strict=True))


async def read_lists(client: ComfyClient, fields: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what the server lists for some of `LISTS`, in its own order."""
    wanted = list(fields)
    classes = await node_classes(client, [LISTS[field][0] for field in wanted])
    found: dict[str, tuple[str, ...]] = {}
    for field in wanted:
        class_name, key, folder = LISTS[field]
        described = classes[class_name]
        if described is not None:
            found[field] = described.names(key)
        else:
            found[field] = await client.models(folder) if folder else ()
    return found


async def read_inventory(client: ComfyClient) -> Inventory:
    """List everything the server has."""
    lists = await read_lists(client, LISTS)
    return Inventory(**lists, embeddings=await client.embeddings())
