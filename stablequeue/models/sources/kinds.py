"""Kinds of model, and what Civitai and ComfyUI call them."""

KINDS = (
    "checkpoint",
    "lora",
    "embedding",
    "vae",
    "controlnet",
    "upscaler",
    "unet",
    "text_encoder",
    "clip_vision",
    "hypernetwork",
    "motion_module",
)
"""`unet` is any diffusion model without VAE and text encoder, whatever its architecture."""

_CIVITAI_TYPES = {
    "checkpoint": "checkpoint",
    "lora": "lora",
    "locon": "lora",
    "dora": "lora",
    "textualinversion": "embedding",
    "vae": "vae",
    "controlnet": "controlnet",
    "upscaler": "upscaler",
    "unet": "unet",
    "textencoder": "text_encoder",
    "clip": "text_encoder",
    "clipvision": "clip_vision",
    "hypernetwork": "hypernetwork",
    "motionmodule": "motion_module",
}
_CIVITAI_FILE_TYPES = {
    "vae": "vae",
    "text encoder": "text_encoder",
    "vision encoder": "clip_vision",
    "clipvision": "clip_vision",
    "unet": "unet",
    "diffusion model": "unet",
    "controlnet": "controlnet",
    "upscaler": "upscaler",
}
_COMFYUI_FOLDERS = {
    "checkpoints": "checkpoint",
    "loras": "lora",
    "embeddings": "embedding",
    "vae": "vae",
    "vae_approx": "vae",
    "controlnet": "controlnet",
    "t2i_adapter": "controlnet",
    "model_patches": "controlnet",
    "upscale_models": "upscaler",
    "latent_upscale_models": "upscaler",
    "diffusion_models": "unet",
    "unet": "unet",
    "text_encoders": "text_encoder",
    "clip": "text_encoder",
    "clip_vision": "clip_vision",
    "hypernetworks": "hypernetwork",
    "animatediff_models": "motion_module",
}


def of_civitai(model_type: str, file_type: str = "") -> str:
    """Return the kind of a file by Civitai's types of model and file; empty if it has none.

    A file's own type wins where it says more: a checkpoint's page may carry a VAE, and the
    diffusion model alone.
    """
    by_file = _CIVITAI_FILE_TYPES.get(file_type.casefold(), "")
    return by_file or _CIVITAI_TYPES.get(model_type.casefold().replace(" ", ""), "")


def of_comfyui(folder: str) -> str:
    """Return the kind that lives in one of ComfyUI's model folders; empty if it is none of ours."""
    first = folder.replace("\\", "/").strip("/").casefold().removeprefix("models/").partition("/")
    return _COMFYUI_FOLDERS.get(first[0], "")


_OF_KIND = {
    # Civitai's own words, as its API wants them: a LoRA may be any of three.
    "checkpoint": ("Checkpoint",),
    "lora": ("LORA", "LoCon", "DoRA"),
    "embedding": ("TextualInversion",),
    "vae": ("VAE",),
    "controlnet": ("Controlnet",),
    "upscaler": ("Upscaler",),
    "hypernetwork": ("Hypernetwork",),
    "unet": ("UNet",),
    "diffusion_model": ("UNet",),
    "text_encoder": ("TextEncoder", "CLIP"),
    "clip_vision": ("CLIPVision",),
    "motion_module": ("MotionModule",),
}


def civitai_types(word: str) -> tuple[str, ...]:
    """Return Civitai's words for a kind of model; one it has itself stays as it is."""
    return _OF_KIND.get(word.strip().casefold().replace("-", "_"), (word.strip(),))
