"""Families of image models: what shares the shapes of weights, and so LoRAs, and their names.

Two names matter. The *family* is what shapes tell. The *base model* is Civitai's word, an open set
of free texts, which tells more (Pony and Illustrious are both of the family SDXL) but is only what
somebody typed. Source: Civitai's list of base models (2026-08).
"""

import re
from enum import StrEnum


class Family(StrEnum):
    """What a model's weights fit."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl-refiner"
    SD3_MEDIUM = "sd3-medium"
    SD35_MEDIUM = "sd3.5-medium"
    SD35_LARGE = "sd3.5-large"
    CASCADE = "stable-cascade"
    FLUX1 = "flux1"
    FLUX2_DEV = "flux2-dev"
    FLUX2_KLEIN_9B = "flux2-klein-9b"
    FLUX2_KLEIN_4B = "flux2-klein-4b"
    CHROMA = "chroma"
    AURAFLOW = "auraflow"
    PIXART = "pixart"
    HUNYUAN_DIT = "hunyuan-dit"
    HUNYUAN_VIDEO = "hunyuan-video"
    LUMINA2 = "lumina2"
    Z_IMAGE = "z-image"
    QWEN_IMAGE = "qwen-image"
    HIDREAM = "hidream"
    OMNIGEN2 = "omnigen2"
    COSMOS = "cosmos-predict2"
    WAN_1_3B = "wan-1.3b"
    WAN_5B = "wan-5b"
    WAN_14B = "wan-14b"
    LTXV = "ltxv"
    MOCHI = "mochi"

    @property
    def spoken(self) -> str:
        """As people write it."""
        return _SPOKEN.get(self, self.value)


_SPOKEN = {
    Family.SD1: "SD 1.5",
    Family.SD2: "SD 2",
    Family.SDXL: "SDXL",
    Family.SDXL_REFINER: "SDXL refiner",
    Family.SD3_MEDIUM: "SD 3 Medium",
    Family.SD35_MEDIUM: "SD 3.5 Medium",
    Family.SD35_LARGE: "SD 3.5 Large",
    Family.CASCADE: "Stable Cascade",
    Family.FLUX1: "Flux.1",
    Family.FLUX2_DEV: "Flux.2 dev",
    Family.FLUX2_KLEIN_9B: "Flux.2 Klein 9B",
    Family.FLUX2_KLEIN_4B: "Flux.2 Klein 4B",
    Family.CHROMA: "Chroma",
    Family.AURAFLOW: "AuraFlow",
    Family.PIXART: "PixArt",
    Family.HUNYUAN_DIT: "Hunyuan DiT",
    Family.HUNYUAN_VIDEO: "Hunyuan Video or Image",
    Family.LUMINA2: "Lumina 2",
    Family.Z_IMAGE: "Z-Image",
    Family.QWEN_IMAGE: "Qwen-Image",
    Family.HIDREAM: "HiDream",
    Family.OMNIGEN2: "OmniGen2",
    Family.COSMOS: "Cosmos Predict2",
    Family.WAN_1_3B: "Wan 1.3B",
    Family.WAN_5B: "Wan 5B",
    Family.WAN_14B: "Wan 14B",
    Family.LTXV: "LTX-Video",
    Family.MOCHI: "Mochi",
}

_BASE_MODELS: tuple[tuple[str, Family], ...] = (
    # The first that is found decides: the more particular ones come first.
    (r"^pony ?v7", Family.AURAFLOW),
    (r"^auraflow", Family.AURAFLOW),
    (r"^(pony|illustrious|noobai|nai ?xl|animagine)", Family.SDXL),
    (r"^sd ?xl refiner|xl-v1-refiner", Family.SDXL_REFINER),
    (r"^sdxl|stable-diffusion-xl", Family.SDXL),
    (r"^sd ?3\.5 medium|stable-diffusion-3\.?5?-?medium-?3?\.?5", Family.SD35_MEDIUM),
    (r"^sd ?3\.5 large|stable-diffusion-3\.5-large|^sd3\.5-large", Family.SD35_LARGE),
    (r"^sd ?3$|^sd3[-_ ]?m|stable-diffusion-3-medium", Family.SD3_MEDIUM),
    (r"^sd ?1(\.|$|\s)|^sd_v1|^sd15|stable-diffusion-v1", Family.SD1),
    (r"^sd ?2(\.|$|\s)|^sd_v2|^sd21|stable-diffusion-v2", Family.SD2),
    (r"^stable cascade|^stable-cascade", Family.CASCADE),
    (r"^flux[. _-]?2.*klein.*9b", Family.FLUX2_KLEIN_9B),
    (r"^flux[. _-]?2.*klein.*4b", Family.FLUX2_KLEIN_4B),
    (r"^flux[. _-]?2", Family.FLUX2_DEV),
    (r"^chroma", Family.CHROMA),
    (r"^flux", Family.FLUX1),
    (r"^z[-_ ]?image", Family.Z_IMAGE),
    (r"^lumina", Family.LUMINA2),
    (r"^qwen", Family.QWEN_IMAGE),
    (r"^wan.*1[._]3b", Family.WAN_1_3B),
    (r"^wan.*(?<![0-9])5b", Family.WAN_5B),
    (r"^wan.*a?14b", Family.WAN_14B),
    (r"^hunyuan ?1|^hunyuan[-_ ]?dit", Family.HUNYUAN_DIT),
    (r"^hunyuan[-_ ]?(video|image)|^hyvid", Family.HUNYUAN_VIDEO),
    (r"^pixart", Family.PIXART),
    (r"^hidream(?!-o1)", Family.HIDREAM),
    (r"^omnigen", Family.OMNIGEN2),
    (r"^anima|^cosmos", Family.COSMOS),
    (r"^ltxv?", Family.LTXV),
    (r"^mochi", Family.MOCHI),
    (r"^aura", Family.AURAFLOW),
)


def family_of(base_model: str) -> Family | None:
    """Return the family that a word for a base model means; None: not known, or not telling.

    Understands Civitai's `baseModel`, kohya's `ss_base_model_version`, `modelspec.architecture`
    and GGUF's `general.architecture`.
    """
    text = base_model.strip().casefold().partition("/")[0]
    for pattern, family in _BASE_MODELS:
        if re.search(pattern, text[:100]):
            return family
    return None
