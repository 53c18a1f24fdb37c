"""What a model file is for."""

from enum import StrEnum


class ModelType(StrEnum):
    """What a model file is for; the value is what commands and `--json` show."""

    CHECKPOINT = "checkpoint"  # image model with its text encoders and VAE in one file
    DIFFUSION_MODEL = "diffusion_model"  # the image model (UNet, DiT) alone
    LORA = "lora"  # LyCORIS and DoRA too
    EMBEDDING = "embedding"
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    CONTROLNET = "controlnet"
    UPSCALER = "upscaler"
    HYPERNETWORK = "hypernetwork"
    CLIP_VISION = "clip_vision"


_CIVITAI = {
    "checkpoint": ModelType.CHECKPOINT,
    "lora": ModelType.LORA,
    "locon": ModelType.LORA,
    "lycoris": ModelType.LORA,
    "lyco": ModelType.LORA,
    "dora": ModelType.LORA,
    "textualinversion": ModelType.EMBEDDING,
    "embedding": ModelType.EMBEDDING,
    "embed": ModelType.EMBEDDING,
    "hypernetwork": ModelType.HYPERNETWORK,
    "hypernet": ModelType.HYPERNETWORK,
    "vae": ModelType.VAE,
    "controlnet": ModelType.CONTROLNET,
    "upscaler": ModelType.UPSCALER,
    "textencoder": ModelType.TEXT_ENCODER,
    "clip": ModelType.TEXT_ENCODER,
    "clipvision": ModelType.CLIP_VISION,
    "unet": ModelType.DIFFUSION_MODEL,
    "diffusionmodel": ModelType.DIFFUSION_MODEL,
    "model": ModelType.CHECKPOINT,
}


def type_of(word: str) -> ModelType | None:
    """Return the type that Civitai, an AIR or an infotext means by a word; None: no weights.

    Case, spaces and underscores do not matter. The sets are open: Civitai adds words.
    """
    return _CIVITAI.get(word.casefold().replace(" ", "").replace("_", "").replace("-", ""))
