"""What headers show: the family of image models, LoRAs and the rest."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.models.architecture import Architecture, architecture_of
from stablequeue.models.families import Family, family_of
from stablequeue.models.headers import Format, Header
from stablequeue.models.image_models import Shapes
from stablequeue.models.kinds import ModelType

QKV = "joint_blocks.0.context_block.attn.qkv.weight"
FLUX = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64)}
GUIDANCE = {"guidance_in.in_layer.weight": (3072, 256)}
FLUX2 = {
    "double_blocks.0.img_attn.norm.key_norm.weight": (128,),
    "img_in.weight": (6144, 128),
    "double_stream_modulation_img.lin.weight": (1, 1),
}


def _unet(context: int, inputs: int = 4) -> Shapes:
    return {
        "input_blocks.0.0.weight": (320, inputs, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, context),
    }


IMAGE_MODELS: list[tuple[Shapes, Family, str]] = [
    ({QKV: (1,), "x_embedder.proj.weight": (1536, 16, 2, 2)}, Family.SD3_MEDIUM, ""),
    (
        {
            QKV: (1,),
            "x_embedder.proj.weight": (1536, 16, 2, 2),
            "joint_blocks.0.x_block.attn2.qkv.weight": (1,),
        },
        Family.SD35_MEDIUM,
        "",
    ),
    ({QKV: (1,), "x_embedder.proj.weight": (2432, 16, 2, 2)}, Family.SD35_LARGE, ""),
    ({"clf.1.weight": (1,), "clip_txt_mapper.weight": (1,)}, Family.CASCADE, "stage c"),
    ({"clf.1.weight": (1,), "clip_mapper.weight": (1,)}, Family.CASCADE, "stage b"),
    ({"double_layers.0.attn.w1q.weight": (1,)}, Family.AURAFLOW, ""),
    ({"mlp_t5.0.weight": (1,)}, Family.HUNYUAN_DIT, ""),
    (
        {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (1,), **FLUX},
        Family.HUNYUAN_VIDEO,
        "",
    ),
    ({**FLUX, **GUIDANCE}, Family.FLUX1, "dev"),
    (FLUX, Family.FLUX1, "schnell"),
    ({**FLUX, **GUIDANCE, "img_in.weight": (3072, 384)}, Family.FLUX1, "fill"),
    ({**FLUX, **GUIDANCE, "img_in.weight": (3072, 128)}, Family.FLUX1, "depth or canny"),
    ({**FLUX2, "txt_in.weight": (6144, 15360)}, Family.FLUX2_DEV, ""),
    ({**FLUX2, "txt_in.weight": (4096, 12288)}, Family.FLUX2_KLEIN_9B, ""),
    ({**FLUX2, "txt_in.weight": (3072, 7680)}, Family.FLUX2_KLEIN_4B, ""),
    ({**FLUX, "distilled_guidance_layer.norms.0.scale": (1,)}, Family.CHROMA, ""),
    (
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "distilled_guidance_layer.norms.0.scale": (1,),
            "nerf_blocks.0.x": (1,),
        },
        Family.CHROMA,
        "radiance",
    ),
    ({"t5_yproj.weight": (1,)}, Family.MOCHI, ""),
    ({"adaln_single.emb.timestep_embedder.linear_1.bias": (1,)}, Family.LTXV, ""),
    (
        {
            "adaln_single.emb.timestep_embedder.linear_1.bias": (1,),
            "pos_embed.proj.bias": (1,),
            "t_block.1.weight": (1,),
        },
        Family.PIXART,
        "",
    ),
    ({"cap_embedder.1.weight": (2304, 2304)}, Family.LUMINA2, ""),
    ({"cap_embedder.1.weight": (3840, 2560)}, Family.Z_IMAGE, ""),
    ({"head.modulation": (1, 2, 1536)}, Family.WAN_1_3B, ""),
    ({"head.modulation": (1, 2, 3072)}, Family.WAN_5B, ""),
    ({"head.modulation": (1, 2, 5120)}, Family.WAN_14B, ""),
    ({"head.modulation": (1, 2, 5120), "img_emb.proj.0.bias": (1,)}, Family.WAN_14B, "i2v"),
    (
        {"head.modulation": (1, 2, 5120), "patch_embedding.weight": (5120, 36, 1, 2, 2)},
        Family.WAN_14B,
        "i2v",
    ),
    ({"head.modulation": (1, 2, 5120), "vace_blocks.0.x": (1,)}, Family.WAN_14B, "vace"),
    ({"caption_projection.0.linear.weight": (1,)}, Family.HIDREAM, ""),
    ({"blocks.0.mlp.layer1.weight": (1,)}, Family.COSMOS, ""),
    ({"time_caption_embed.timestep_embedder.linear_1.bias": (1,)}, Family.OMNIGEN2, ""),
    ({"txt_norm.weight": (1,), "transformer_blocks.0.x": (1,)}, Family.QWEN_IMAGE, ""),
    (_unet(768), Family.SD1, ""),
    (_unet(1024), Family.SD2, ""),
    (_unet(2048), Family.SDXL, ""),
    (_unet(1280), Family.SDXL_REFINER, ""),
    (_unet(768, 9), Family.SD1, "inpaint"),
    (_unet(2048, 8), Family.SDXL, "edit"),
    (
        {"input_blocks.0.0.weight": (320, 4, 3, 3), "label_emb.0.0.weight": (1280, 2816)},
        Family.SDXL,
        "",
    ),
    (
        {
            "conv_in.weight": (320, 4, 3, 3),
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        },
        Family.SDXL,
        "",
    ),
]


def _of(shapes: Shapes, metadata: dict[str, str] | None = None) -> Architecture:
    return architecture_of(
        Header(format=Format.SAFETENSORS, shapes=shapes, metadata=metadata or {})
    )


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "net."])
@pytest.mark.parametrize(("shapes", "family", "variant"), IMAGE_MODELS)
def test_image_models_are_told_by_their_tensors(
    shapes: Shapes, family: Family, variant: str, prefix: str
) -> None:
    found = _of({prefix + name: shape for name, shape in shapes.items()})

    assert (found.family, found.variant) == (family, variant)
    assert found.kind is ModelType.DIFFUSION_MODEL
    assert found.evidence == "tensors"


@pytest.mark.parametrize(
    "encoder", ["cond_stage_model.x", "conditioner.embedders.1.model.x", "text_encoders.t5.x"]
)
def test_a_file_with_text_encoders_is_a_checkpoint(encoder: str) -> None:
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in _unet(2048).items()}

    found = _of({**shapes, encoder: (1,), "first_stage_model.decoder.conv_in.weight": (512, 4)})

    assert found.kind is ModelType.CHECKPOINT
    assert found.family is Family.SDXL


def test_v_prediction_is_seen_where_it_is_marked() -> None:
    assert _of({**_unet(2048), "v_pred": (0,)}).prediction == "v"
    assert _of(_unet(2048), {"modelspec.prediction_type": "v"}).prediction == "v"
    assert _of(_unet(2048)).prediction == ""


def _kohya(layer: str, width: int) -> Shapes:
    return {
        f"{layer}.lora_down.weight": (16, width),
        f"{layer}.lora_up.weight": (1280, 16),
        f"{layer}.alpha": (),
    }


def _peft(layer: str, width: int) -> Shapes:
    return {f"{layer}.lora_A.weight": (16, width), f"{layer}.lora_B.weight": (1280, 16)}


CROSS = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
LORAS: list[tuple[Shapes, Family | None]] = [
    (_kohya(CROSS, 768), Family.SD1),
    (_kohya(CROSS, 1024), Family.SD2),
    (_kohya(CROSS, 2048), Family.SDXL),
    (_peft("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 2048), Family.SDXL),
    (_kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280), Family.SDXL),
    (_kohya("lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q", 1280), Family.SDXL),
    (
        {"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.hada_w1_a": (640, 8)},
        Family.SDXL,
    ),
    (_kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072), Family.FLUX1),
    (_kohya("lora_unet_single_blocks_3_linear1", 6144), Family.FLUX2_DEV),
    (_peft("transformer.single_transformer_blocks.0.attn.to_q", 3072), Family.FLUX1),
    (_peft("diffusion_model.double_blocks.0.img_attn.qkv", 4096), Family.FLUX2_KLEIN_9B),
    (_peft("transformer.double_blocks.0.img_attn_qkv", 3072), Family.HUNYUAN_VIDEO),
    (_kohya("lora_unet_double_blocks_0_img_mlp_fc1", 3072), Family.HUNYUAN_VIDEO),
    (_kohya("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536), Family.SD3_MEDIUM),
    (_kohya("lora_unet_joint_blocks_0_x_block_attn2_qkv", 1536), Family.SD35_MEDIUM),
    (_kohya("lora_unet_joint_blocks_0_x_block_attn_qkv", 2432), Family.SD35_LARGE),
    (_peft("diffusion_model.blocks.0.cross_attn.k", 5120), Family.WAN_14B),
    (_kohya("lora_unet_blocks_0_cross_attn_k", 1536), Family.WAN_1_3B),
    (_peft("diffusion_model.blocks.0.self_attn.q", 3072), Family.WAN_5B),
    (_peft("diffusion_model.blocks.0.cross_attn.q_proj", 2048), Family.COSMOS),
    (
        {
            **_peft("transformer_blocks.3.attn.add_k_proj", 3072),
            **_peft("transformer_blocks.3.img_mlp.net.0.proj", 3072),
        },
        Family.QWEN_IMAGE,
    ),
    (_peft("transformer.transformer_blocks.59.attn.add_k_proj", 3072), Family.QWEN_IMAGE),
    (_peft("transformer.transformer_blocks.0.attn.add_k_proj", 2432), Family.SD35_LARGE),
    (_peft("transformer.transformer_blocks.0.attn.add_k_proj", 3072), None),
    (_peft("diffusion_model.layers.0.attention.to_q", 3840), Family.Z_IMAGE),
    (_kohya("lora_unet_layers_0_attention_qkv", 2304), Family.LUMINA2),
    (_kohya("lora_te_text_model_encoder_layers_0_mlp_fc1", 768), None),
]


@pytest.mark.parametrize(("shapes", "family"), LORAS)
def test_loras_are_told_by_the_layers_they_sit_on(shapes: Shapes, family: Family | None) -> None:
    found = _of(shapes)

    assert found.kind is ModelType.LORA
    assert found.family is family


def test_what_a_lora_says_fills_in_what_its_tensors_leave_open() -> None:
    text_only = _kohya("lora_te_text_model_encoder_layers_0_mlp_fc1", 768)
    said = _of(text_only, {"ss_base_model_version": "sd_v1"})
    assert (said.family, said.evidence) == (Family.SD1, "ss_base_model_version")
    assert _of(text_only, {"ss_v2": "True"}).family is Family.SD2

    flux = _kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072)
    assert _of(flux, {"ss_base_model_version": "chroma"}).family is Family.CHROMA


def test_what_a_lora_says_never_beats_its_tensors() -> None:
    found = _of(_kohya(CROSS, 768), {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})

    assert (found.family, found.evidence) == (Family.SD1, "tensors")


def test_a_dora_is_a_lora() -> None:
    found = _of({**_kohya(CROSS, 2048), f"{CROSS}.dora_scale": (1, 640)})

    assert (found.kind, found.variant) == (ModelType.LORA, "dora")


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        ({"emb_params": (4, 768)}, (ModelType.EMBEDDING, Family.SD1, "", 0)),
        ({"emb_params": (4, 1024)}, (ModelType.EMBEDDING, Family.SD2, "", 0)),
        ({"clip_g": (4, 1280), "clip_l": (4, 768)}, (ModelType.EMBEDDING, Family.SDXL, "", 0)),
        ({"decoder.conv_in.weight": (512, 4, 3, 3)}, (ModelType.VAE, None, "", 4)),
        (
            {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)},
            (ModelType.VAE, None, "", 4),
        ),
        ({"decoder.conv_in.weight": (512, 16, 3, 3)}, (ModelType.VAE, None, "", 16)),
        ({"decoder.conv_in.weight": (512, 32, 3, 3)}, (ModelType.VAE, None, "", 32)),
        ({"decoder.conv1.weight": (384, 16, 3, 3, 3)}, (ModelType.VAE, None, "video", 16)),
        (
            {f"control_model.{name}": shape for name, shape in _unet(768).items()},
            (ModelType.CONTROLNET, Family.SD1, "", 0),
        ),
        (
            {
                "controlnet_cond_embedding.conv_in.weight": (1,),
                "conv_in.weight": (320, 4, 3, 3),
                "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
            },
            (ModelType.CONTROLNET, Family.SDXL, "", 0),
        ),
        (
            {"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)},
            (ModelType.TEXT_ENCODER, None, "t5", 0),
        ),
        ({"enc.blk.0.attn_q.weight": (1, 1)}, (ModelType.TEXT_ENCODER, None, "t5", 0)),
        (
            {"text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768)},
            (ModelType.TEXT_ENCODER, None, "clip_l", 0),
        ),
        (
            {"text_model.encoder.layers.0.mlp.fc1.weight": (5120, 1280)},
            (ModelType.TEXT_ENCODER, None, "clip_g", 0),
        ),
        (
            {"model.layers.0.self_attn.q_proj.weight": (3584, 3584)},
            (ModelType.TEXT_ENCODER, None, "language model", 0),
        ),
        (
            {"vision_model.encoder.layers.0.x": (1,)},
            (ModelType.CLIP_VISION, None, "", 0),
        ),
        ({"model.0.weight": (64, 3, 3, 3)}, (ModelType.UPSCALER, None, "", 0)),
        ({"params_ema.conv_first.weight": (64, 3, 3, 3)}, (ModelType.UPSCALER, None, "", 0)),
        ({}, (None, None, "", 0)),
        ({"something.else": (1,)}, (None, None, "", 0)),
    ],
)
def test_everything_else_is_told_too(
    shapes: Shapes, wanted: tuple[ModelType | None, Family | None, str, int]
) -> None:
    found = _of(shapes)

    assert (found.kind, found.family, found.variant, found.latent_channels) == wanted


def test_a_gguf_of_unknown_tensors_is_taken_at_its_word() -> None:
    header = Header(
        format=Format.GGUF, shapes={"x": (1,)}, metadata={"general.architecture": "qwen_image"}
    )
    found = architecture_of(header)
    assert (found.kind, found.family) == (ModelType.DIFFUSION_MODEL, Family.QWEN_IMAGE)

    encoder = Header(format=Format.GGUF, metadata={"general.architecture": "t5encoder"})
    assert architecture_of(encoder).kind is ModelType.TEXT_ENCODER


def test_a_pickle_shows_nothing() -> None:
    assert architecture_of(Header(format=Format.PICKLE)) == Architecture()


NAMES = st.sampled_from(sorted({name for shapes, *_ in IMAGE_MODELS for name in shapes}))
PARTS = st.sampled_from(sorted({one for shapes, _ in LORAS for one in shapes})) | st.text(
    max_size=9
)


@given(
    st.dictionaries(
        NAMES | PARTS, st.lists(st.integers(0, 2**62), max_size=5).map(tuple), max_size=8
    )
)
def test_any_tensors_show_something_or_nothing_and_never_fail(shapes: Shapes) -> None:
    assert isinstance(_of(shapes), Architecture)


@pytest.mark.parametrize(
    ("word", "family"),
    [
        ("SD 1.5", Family.SD1),
        ("SD 1.5 LCM", Family.SD1),
        ("SD 1.4", Family.SD1),
        ("sd_v1", Family.SD1),
        ("SD 2.1 768", Family.SD2),
        ("sd_v2_v", Family.SD2),
        ("SDXL 1.0", Family.SDXL),
        ("SDXL Lightning", Family.SDXL),
        ("sdxl_base_v1-0", Family.SDXL),
        ("stable-diffusion-xl-v1-base/lora", Family.SDXL),
        ("stable-diffusion-xl-v1-refiner", Family.SDXL_REFINER),
        ("Pony", Family.SDXL),
        ("Illustrious", Family.SDXL),
        ("NoobAI", Family.SDXL),
        ("Pony V7", Family.AURAFLOW),
        ("AuraFlow", Family.AURAFLOW),
        ("SD 3", Family.SD3_MEDIUM),
        ("SD 3.5", None),
        ("SD 3.5 Medium", Family.SD35_MEDIUM),
        ("SD 3.5 Large Turbo", Family.SD35_LARGE),
        ("Flux.1 D", Family.FLUX1),
        ("Flux.1 Kontext", Family.FLUX1),
        ("flux-1-dev/lora", Family.FLUX1),
        ("Flux.2 D", Family.FLUX2_DEV),
        ("Flux.2 Klein 9B-base", Family.FLUX2_KLEIN_9B),
        ("Flux.2 Klein 4B", Family.FLUX2_KLEIN_4B),
        ("Chroma", Family.CHROMA),
        ("ZImageTurbo", Family.Z_IMAGE),
        ("Lumina", Family.LUMINA2),
        ("Qwen", Family.QWEN_IMAGE),
        ("Wan Video 1.3B t2v", Family.WAN_1_3B),
        ("Wan Video 2.2 TI2V-5B", Family.WAN_5B),
        ("Wan Video 2.2 I2V-A14B", Family.WAN_14B),
        ("Wan Video", None),
        ("Hunyuan 1", Family.HUNYUAN_DIT),
        ("Hunyuan Video", Family.HUNYUAN_VIDEO),
        ("hunyuan-image-2.1", Family.HUNYUAN_VIDEO),
        ("PixArt a", Family.PIXART),
        ("Anima", Family.COSMOS),
        ("LTXV2", Family.LTXV),
        ("Upscaler", None),
        ("Other", None),
        ("Sora 2", None),
        ("", None),
    ],
)
def test_words_for_base_models_name_their_family(word: str, family: Family | None) -> None:
    assert family_of(word) is family


def test_every_family_has_a_name_for_people() -> None:
    assert all(re.search("[A-Z]", family.spoken) for family in Family)
