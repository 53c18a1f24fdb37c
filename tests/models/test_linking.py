"""Which field of a request is which model of an infotext."""

from hypothesis import given
from hypothesis import strategies as st

from stablequeue.models.infotext_models import models_of
from stablequeue.models.kinds import ModelType
from stablequeue.models.linking import embeddings_of, uses_of, with_references
from stablequeue.prompts.infotext import parse_infotext
from stablequeue.prompts.infotext_requests import request_from_infotext
from stablequeue.request import GenerationRequest, Lora

TEXT = (
    "a fox <lora:style, v1:0.5> <lora:other:1>, badhands\n"
    "Steps: 9, Sampler: Euler, Seed: 1, Size: 512x512, Model hash: 0123456789, Model: dream,"
    ' VAE hash: abcdef0123, VAE: clear.safetensors, Lora hashes: "style v1: 0123456789ab,'
    ' other: ba9876543210", TI hashes: "badhands: aaaaaaaaaaaa"'
)


def test_every_field_gets_the_hashes_of_its_model() -> None:
    infotext = parse_infotext(TEXT)
    request, _ = request_from_infotext(infotext)

    uses = {one.field: one for one in uses_of(request, models_of(infotext))}

    told = {field: [str(each) for each in one.references] for field, one in uses.items()}
    assert told == {
        "checkpoint": ["autov2:0123456789"],
        "vae": ["autov2:abcdef0123"],
        "loras.0.name": ["0123456789ab"],  # its comma is lost among the hashes
        "loras.1.name": ["ba9876543210"],
    }
    assert uses["loras.0.name"].kind is ModelType.LORA
    [embedding] = embeddings_of(models_of(infotext))
    assert (embedding.given, str(embedding.references[0])) == ("badhands", "aaaaaaaaaaaa")


def test_a_model_of_another_type_lends_no_hash() -> None:
    infotext = parse_infotext(
        'x\nSteps: 1, Seed: 1, Size: 8x8, Model: same, Hashes: {"lora:same": "0123456789"}'
    )
    request, _ = request_from_infotext(infotext)

    [use] = uses_of(request, models_of(infotext))

    assert use.references == ()


def test_an_image_model_without_text_encoders_has_the_checkpoints_hash() -> None:
    infotext = parse_infotext(
        "x\nSteps: 1, Seed: 1, Size: 8x8, Model hash: 0123456789, Model: flux,"
        " Module 1: ae, Module 2: clip_l"
    )
    request, _ = request_from_infotext(infotext)

    told = {
        one.field: [str(each) for each in one.references]
        for one in uses_of(request, models_of(infotext))
    }

    assert told == {"unet": ["autov2:0123456789"], "vae": [], "text_encoders.0": []}


@given(
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=4),
    st.text("abc", max_size=3),
)
def test_references_go_into_their_own_fields_and_nothing_else_changes(
    names: list[str], checkpoint: str
) -> None:
    request = GenerationRequest(
        prompt="p", checkpoint=checkpoint, loras=[Lora(name=one, weight=0.5) for one in names]
    )
    uses = uses_of(request, [])

    changed = with_references(
        request, [(use, f"sha256:{'0' * 60}{n:04d}") for n, use in enumerate(uses)]
    )

    assert [one.weight for one in changed.loras] == [0.5] * len(names)
    assert len({one.name for one in changed.loras}) == len(names)
    assert bool(changed.checkpoint) == bool(checkpoint)
    assert with_references(request, []) is request
    blank = {"checkpoint", "loras"}
    assert changed.model_dump(exclude=blank) == request.model_dump(exclude=blank)
