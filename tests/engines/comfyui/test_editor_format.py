"""From what ComfyUI's editor saves to what a server runs."""

import copy
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.editor_workflow import DEEPEST, MOST_NODES, read_editor_workflow
from stablequeue.engines.comfyui.answers import NodeClass, parse_node_class
from stablequeue.engines.comfyui.editor_format import Converted, class_names, to_api_format
from stablequeue.errors import BadRequest
from tests.engines.comfyui.recordings import recorded
from tests.support.drawing import INPUT, OUTPUT, Drawing, sampling, simple

DESCRIBED: dict[str, Any] = recorded("object_info")
CLASSES: dict[str, NodeClass | None] = {
    name: parse_node_class(DESCRIBED, name) for name in DESCRIBED
}


def declared(name: str, /, *, optional: dict[str, Any] | None = None, **required: Any) -> NodeClass:
    described: dict[str, Any] = {"input": {"required": required, "optional": optional or {}}}
    found = parse_node_class({name: described}, name)
    assert found is not None
    return found


def converted(workflow: dict[str, Any], *more: NodeClass) -> Converted:
    classes = {**CLASSES, **{one.name: one for one in more}}
    return to_api_format(read_editor_workflow(workflow), classes)


def graph_of(workflow: dict[str, Any], *more: NodeClass) -> dict[str, Any]:
    return converted(workflow, *more).graph


def inputs_of(node: int | str, workflow: dict[str, Any], *more: NodeClass) -> dict[str, Any]:
    return graph_of(workflow, *more)[str(node)]["inputs"]


def saved(drawing: Drawing, picture: tuple[int, int]) -> int:
    return drawing.node("SaveImage", "ComfyUI", ins={"images": ("IMAGE", picture)})


def test_a_workflow_becomes_nodes_with_named_values_links_and_titles() -> None:
    graph = graph_of(simple())
    assert [graph[node]["class_type"] for node in graph] == [
        *("CheckpointLoaderSimple", "CLIPTextEncode", "CLIPTextEncode", "EmptyLatentImage"),
        *("KSampler", "VAEDecode", "SaveImage"),
    ]
    assert graph["5"] == {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["4", 0],
        },
        "_meta": {"title": "Sampler"},
    }
    assert graph["7"]["inputs"] == {"filename_prefix": "ComfyUI", "images": ["6", 0]}


def test_a_node_without_a_title_of_its_own_has_that_which_the_editor_shows() -> None:
    known = parse_node_class({"Latent": {"input": {}, "display_name": "Empty Latent"}}, "Latent")
    assert known is not None
    drawing = Drawing()
    drawing.node("Latent")
    drawing.node("VAEDecode")
    graph = graph_of(drawing.workflow(), known)
    assert [node["_meta"]["title"] for node in graph.values()] == ["Empty Latent", "VAEDecode"]


@pytest.mark.parametrize("control", [["fixed"], ["randomize"], [True], []])
def test_what_becomes_of_a_seed_after_a_run_is_passed_over(control: list[Any]) -> None:
    workflow = simple()
    workflow["nodes"][4]["widgets_values"] = [9, *control, 3, 2.5, "heun", "karras", 0.5]
    inputs = inputs_of(5, workflow)
    assert [inputs[name] for name in ("seed", "steps", "cfg", "sampler_name", "denoise")] == [
        *(9, 3, 2.5, "heun", 0.5)
    ]


def test_upload_buttons_and_what_comes_too_much_are_passed_over() -> None:
    drawing = Drawing()
    for values in (["a.png", "image"], ["b.png"], ["c.png", "image", "", None]):
        drawing.node("LoadImage", *values, outs=["IMAGE", "MASK"])
    drawing.node("LoadImageMask", "d.png", "red", "image", outs=["MASK"])
    graph = graph_of(drawing.workflow())
    assert [graph[node]["inputs"]["image"] for node in graph] == [
        *("a.png", "b.png", "c.png", "d.png")
    ]
    assert graph["4"]["inputs"]["channel"] == "red"
    both = declared(
        "Both",
        image=[["x.png"], {"image_upload": True}],
        optional={"strength": ["FLOAT", {"default": 1.0}]},
    )
    drawing = Drawing()
    drawing.node("Both", "x.png", "image", 0.25)
    drawing.node("Both", "x.png", 0.25)
    for node in graph_of(drawing.workflow(), both).values():
        assert node["inputs"] == {"image": "x.png", "strength": 0.25}


def test_inputs_that_are_no_widgets_have_no_value() -> None:
    known = declared(
        "Odd",
        text=["STRING", {"forceInput": True}],
        model=["MODEL"],
        number=["INT,FLOAT", {"widgetType": "FLOAT"}],
        colour=["COLOR", {"default": "#fff"}],
        own=["PACKS_OWN", {}],
    )
    drawing = Drawing()
    source = drawing.node("EmptyLatentImage", outs=["LATENT"])
    drawing.node("Odd", 1.5, "#000", ins={"model": ("MODEL", (source, 0))})
    drawing.node("Odd", 1.5, "#000", "mine", widgets={"own": ("PACKS_OWN", None)})
    graph = graph_of(drawing.workflow(), known)
    assert graph["2"]["inputs"] == {"number": 1.5, "colour": "#000", "model": ["1", 0]}
    assert graph["3"]["inputs"] == {"number": 1.5, "colour": "#000", "own": "mine"}


def test_the_order_a_server_tells_goes_before_that_of_its_json() -> None:
    described: dict[str, Any] = {
        "input": {"required": {"b": ["INT", {}], "a": ["STRING", {}]}},
        "input_order": {"required": ["a", "b"]},
    }
    known = parse_node_class({"Ordered": described}, "Ordered")
    assert known is not None
    drawing = Drawing()
    drawing.node("Ordered", "text", 7)
    assert inputs_of(1, drawing.workflow(), known) == {"a": "text", "b": 7}


def test_what_a_workflow_does_not_tell_has_the_servers_default() -> None:
    drawing = Drawing()
    drawing.node("KSampler", 3, "fixed", 9)
    inputs = inputs_of(1, drawing.workflow())
    assert (inputs["seed"], inputs["steps"], inputs["cfg"]) == (3, 9, 8.0)
    assert (inputs["sampler_name"], inputs["scheduler"]) == ("euler", "simple")


def test_values_may_be_by_name_and_names_tell_the_order_of_values() -> None:
    drawing = Drawing()
    drawing.node("KSampler", widgets_values={"steps": 4, "cfg": 3.0, "preview": {"a": 1}})
    old = {"steps": 1, "seed": 2, "control_after_generate": "fixed", "gone": 3}
    drawing.node("KSampler", 11, 7, "randomize", "lost", widgets_values_named=old)
    graph = graph_of(drawing.workflow())
    assert (graph["1"]["inputs"]["steps"], graph["1"]["inputs"]["cfg"]) == (4, 3.0)
    assert "preview" not in graph["1"]["inputs"]
    assert (graph["2"]["inputs"]["steps"], graph["2"]["inputs"]["seed"]) == (11, 7)
    assert not {"gone", "control_after_generate"} & {*graph["2"]["inputs"]}


def test_a_node_whose_inputs_are_in_an_order_of_their_own_is_read_as_its_class_tells() -> None:
    known = declared("Join", a=["STRING", {}], b=["STRING", {}], c=["STRING", {}])
    drawing = Drawing()
    text = ("STRING", None)
    drawing.node("Join", "1", "2", "3", widgets={"c": text, "a": text, "b": text})
    drawing.node("Join", "1", "", "", widgets={"b": text})
    graph = graph_of(drawing.workflow(), known)
    assert graph["1"]["inputs"] == {"a": "1", "b": "2", "c": "3"}
    assert graph["2"]["inputs"] == {"a": "1", "b": "", "c": ""}


def test_a_class_that_got_an_input_since_is_read_by_the_names_the_node_tells() -> None:
    now = declared(
        "Grown",
        first=["INT", {"default": 1}],
        added=["INT", {"default": 5}],
        last=["INT", {"default": 1}],
    )
    drawing = Drawing()
    drawing.node("Grown", 2, 3, widgets={"first": ("INT", None), "last": ("INT", None)})
    assert inputs_of(1, drawing.workflow(), now) == {"first": 2, "added": 5, "last": 3}


def test_a_value_that_cannot_be_one_of_its_input_is_refused_naming_the_node() -> None:
    workflow = simple()
    workflow["nodes"][4]["widgets_values"] = [9, "fixed", "euler", 3, 2.5, "normal", 0.5]
    with pytest.raises(BadRequest, match=r"node 5 \(Sampler\): its input steps cannot be 'euler'"):
        graph_of(workflow)


def test_a_list_is_marked_so_that_it_is_taken_for_no_link() -> None:
    known = declared("Points", points=["CURVE", {}])
    drawing = Drawing()
    drawing.node("Points", ["1", 0])
    assert inputs_of(1, drawing.workflow(), known) == {"points": {"__value__": ["1", 0]}}


def test_the_choice_of_a_dynamic_choice_brings_inputs_of_its_own() -> None:
    quality = {"quality": ["INT", {"default": 90}], "mask": ["MASK"]}
    lossless = {"effort": ["INT", {"default": 4}]}
    known = declared(
        "Save",
        format=[
            "COMFY_DYNAMICCOMBO_V3",
            {
                "options": [
                    {"key": "png", "inputs": {"required": lossless}},
                    {"key": "jpeg", "inputs": {"required": quality}},
                ]
            },
        ],
        name=["STRING", {}],
    )
    drawing = Drawing()
    mask = drawing.node("LoadImageMask", "m.png", "red", outs=["MASK"])
    drawing.node("Save", "jpeg", 75, "out", ins={"format.mask": ("MASK", (mask, 0))})
    drawing.node("Save", "png", 9, "out")
    graph = graph_of(drawing.workflow(), known)
    assert graph["2"]["inputs"] == {
        "format": "jpeg",
        "format.quality": 75,
        "name": "out",
        "format.mask": ["1", 0],
    }
    assert graph["3"]["inputs"] == {"format": "png", "format.effort": 9, "name": "out"}


def test_a_widget_that_is_connected_gets_the_link() -> None:
    drawing = Drawing()
    text = drawing.node("PreviewAny", outs=["STRING"])
    drawing.node("CLIPTextEncode", "own", widgets={"text": ("STRING", (text, 0))})
    assert inputs_of(2, drawing.workflow()) == {"text": ["1", 0]}


def test_muted_nodes_are_left_out_with_what_leads_from_them() -> None:
    drawing = Drawing()
    loader = drawing.node("CheckpointLoaderSimple", "a", outs=["MODEL", "CLIP", "VAE"], mode=2)
    text = drawing.node("CLIPTextEncode", "x", ins={"clip": ("CLIP", (loader, 1))})
    assert graph_of(drawing.workflow())[str(text)]["inputs"] == {"text": "x"}
    assert class_names(read_editor_workflow(drawing.workflow())) == ["CLIPTextEncode"]


def test_a_bypassed_node_hands_on_its_input_of_the_same_type() -> None:
    drawing = Drawing()
    loader = drawing.node("CheckpointLoaderSimple", "a", outs=["MODEL", "CLIP", "VAE"])
    both = {"model": ("MODEL", (loader, 0)), "clip": ("CLIP", (loader, 1))}
    first = drawing.node("LoraLoader", "x", 1, 1, ins=both, outs=["MODEL", "CLIP"], mode=4)
    swapped = {"clip": ("CLIP", (first, 1)), "model": ("MODEL", (first, 0))}
    second = drawing.node("LoraLoader", "y", 1, 1, ins=swapped, outs=["MODEL", "CLIP"], mode=4)
    picture = sampling(drawing, (second, 0), (second, 1), (loader, 2))
    lost = drawing.node("VAELoader", "v", outs=["VAE"], mode=4)
    drawing.node("VAEDecode", ins={"vae": ("VAE", (lost, 0)), "samples": ("LATENT", picture)})
    graph = graph_of(drawing.workflow())
    assert "2" not in graph
    assert graph["4"]["inputs"]["clip"] == ["1", 1]
    assert graph["7"]["inputs"]["model"] == ["1", 0]
    assert "vae" not in graph["10"]["inputs"], "a bypassed loader has nothing to hand on"


def test_reroutes_primitives_and_notes_are_the_editors_only() -> None:
    drawing = Drawing()
    loader = drawing.node("CheckpointLoaderSimple", "a", outs=["MODEL", "CLIP", "VAE"])
    first = drawing.node("Reroute", ins={"": ("*", (loader, 1))}, outs=["CLIP"])
    second = drawing.node("Reroute", ins={"": ("*", (first, 0))}, outs=["CLIP"])
    words = drawing.node("PrimitiveNode", "a bird", "fixed", outs=["STRING"], title="Words")
    text = drawing.node(
        "CLIPTextEncode",
        "unused",
        ins={"clip": ("CLIP", (second, 0))},
        widgets={"text": ("STRING", (words, 0))},
    )
    drawing.node("Note", "read me")
    drawing.node("MarkdownNote", "# read me")
    drawing.node("Fast Groups Muter (rgthree)")
    done = converted(drawing.workflow())
    assert [*done.graph] == ["1", "5"]
    assert done.graph[str(text)]["inputs"] == {"text": "a bird", "clip": ["1", 1]}
    assert done.inside(["Words.value", "4.value", "5.text"]) == {
        "Words.value": ["5.text"],
        "4.value": ["5.text"],
    }


def painter(name: str = "painter") -> dict[str, Any]:
    """Draw a subgraph of everything but the models: text and seed are its own widgets."""
    inner = Drawing()
    picture = sampling(inner, (INPUT, 0), (INPUT, 1), (INPUT, 2), prompt="inner")
    text, sampler = inner.nodes[0], inner.nodes[3]
    for node, key, slot in ((text, "text", 3), (sampler, "seed", 4)):
        place = len(node["inputs"])
        link = inner.link((INPUT, slot), (node["id"], place))
        node["inputs"].append({"name": key, "type": "*", "link": link, "widget": {"name": key}})
    inner.link(picture, (OUTPUT, 0), "IMAGE")
    inputs = {"model": "MODEL", "clip": "CLIP", "vae": "VAE", "words": "STRING", "seed": "INT"}
    return inner.subgraph(name, inputs, {"IMAGE": "IMAGE"})


def with_painter(*values: Any, **more: Any) -> dict[str, Any]:
    drawing = Drawing()
    loader = drawing.node("CheckpointLoaderSimple", "a", outs=["MODEL", "CLIP", "VAE"])
    models = {
        name.lower(): (name, (loader, place)) for place, name in enumerate(("MODEL", "CLIP", "VAE"))
    }
    painted = drawing.node("painter", *values, ins=models, outs=["IMAGE"], title="Paint", **more)
    saved(drawing, (painted, 0))
    return drawing.workflow(painter())


def test_a_subgraph_is_written_out_with_the_ids_of_its_place() -> None:
    graph = graph_of(with_painter())
    assert [*graph] == ["1", "3", "2:1", "2:2", "2:3", "2:4", "2:5"]
    assert graph["3"]["inputs"]["images"] == ["2:5", 0]
    assert graph["2:1"]["inputs"] == {"text": "inner", "clip": ["1", 1]}
    assert graph["2:4"]["inputs"]["model"] == ["1", 0]
    assert graph["2:4"]["inputs"]["seed"] == 5


@pytest.mark.parametrize(
    ("values", "more"),
    [
        (["outer", 77], {}),
        (["outer", 77, "randomize"], {}),
        ([], {"widgets_values_named": {"words": "outer", "seed": 77}}),
        (["outer", 77], {"properties": {"proxyWidgets": [["-1", "words"], ["4", "seed"]]}}),
        (["outer", 77], {"properties": {"proxyWidgets": [["1", "text"], ["4", "seed"]]}}),
    ],
)
def test_a_subgraphs_own_widgets_go_before_those_inside(
    values: list[Any], more: dict[str, Any]
) -> None:
    graph = graph_of(with_painter(*values, **more))
    assert (graph["2:1"]["inputs"]["text"], graph["2:4"]["inputs"]["seed"]) == ("outer", 77)


def test_widgets_a_subgraph_shows_can_be_overridden_by_its_names() -> None:
    done = converted(with_painter("outer", 77))
    asked = ["2.words", "Paint.words", "Paint.seed", "2:1.text", "3.filename_prefix"]
    assert done.inside(asked) == {
        "2.words": ["2:1.text"],
        "Paint.words": ["2:1.text"],
        "Paint.seed": ["2:4.seed"],
    }
    proxied = {"properties": {"proxyWidgets": [["4", "steps"]]}}
    assert converted(with_painter(9, **proxied)).inside(["2.steps"]) == {"2.steps": ["2:4.steps"]}


def nested() -> dict[str, Any]:
    """Draw a subgraph in a subgraph; what the inner one shows, the outer one shows."""
    middle = Drawing()
    ins: dict[str, Any] = {
        "model": ("MODEL", (INPUT, 0)),
        "clip": ("CLIP", (INPUT, 1)),
        "vae": ("VAE", (INPUT, 2)),
        "words": ("STRING", (INPUT, 3)),
    }
    painted = middle.node("painter", ins=ins, outs=["IMAGE"])
    middle.link((painted, 0), (OUTPUT, 0))
    inputs = {"model": "MODEL", "clip": "CLIP", "vae": "VAE", "words": "STRING"}
    outer = Drawing()
    loader = outer.node("CheckpointLoaderSimple", "a", outs=["MODEL", "CLIP", "VAE"])
    models = {
        name.lower(): (name, (loader, place)) for place, name in enumerate(("MODEL", "CLIP", "VAE"))
    }
    framed = outer.node("frame", "outermost", ins=models, outs=["IMAGE"], title="Frame")
    saved(outer, (framed, 0))
    return outer.workflow(middle.subgraph("frame", inputs, {"IMAGE": "IMAGE"}), painter())


def test_subgraphs_stand_in_subgraphs() -> None:
    done = converted(nested())
    assert done.graph["2:1:1"]["inputs"] == {"text": "outermost", "clip": ["1", 1]}
    assert done.graph["3"]["inputs"]["images"] == ["2:1:5", 0]
    assert done.inside(["Frame.words"]) == {"Frame.words": ["2:1:1.text"]}


def test_a_bypassed_subgraph_runs_nothing_and_hands_on_its_input() -> None:
    inner = Drawing()
    inverted = inner.node("ImageInvert", ins={"image": ("IMAGE", (INPUT, 0))}, outs=["IMAGE"])
    inner.link((inverted, 0), (OUTPUT, 0))
    definition = inner.subgraph("turn", {"image": "IMAGE"}, {"IMAGE": "IMAGE"})
    for mode, images in ((0, ["2:1", 0]), (4, ["1", 0]), (2, None)):
        outer = Drawing()
        picture = outer.node("LoadImage", "a.png", "image", outs=["IMAGE", "MASK"])
        ins = {"image": ("IMAGE", (picture, 0))}
        turned = outer.node("turn", ins=ins, outs=["IMAGE"], mode=mode)
        kept = saved(outer, (turned, 0))
        graph = graph_of(outer.workflow(definition))
        assert graph[str(kept)]["inputs"].get("images") == images
        assert ("2:1" in graph) is (mode == 0)


def test_two_instances_of_a_subgraph_are_two_sets_of_nodes() -> None:
    workflow = with_painter("first", 1)
    again = copy.deepcopy(workflow["nodes"][1]) | {"id": 9, "widgets_values": ["second", 2]}
    workflow["nodes"].append(again)
    graph = graph_of(workflow)
    texts = [graph[node]["inputs"]["text"] for node in ("2:1", "9:1")]
    assert texts == ["first", "second"]
    done = converted(workflow)
    assert done.inside(["9.words"]) == {"9.words": ["9:1.text"]}
    with pytest.raises(BadRequest, match="several nodes have this title") as refusal:
        done.inside(["Paint.words"])
    assert (refusal.value.field, refusal.value.allowed) == ("overrides.Paint.words", ("2", "9"))


def test_links_in_a_circle_are_refused() -> None:
    drawing = Drawing()
    drawing.node("Reroute", ins={"": ("*", (2, 0))}, outs=["IMAGE"])
    drawing.node("Reroute", ins={"": ("*", (1, 0))}, outs=["IMAGE"])
    saved(drawing, (1, 0))
    with pytest.raises(BadRequest, match="node 3: the links of its input images go in circles"):
        graph_of(drawing.workflow())


def test_links_that_take_too_long_to_follow_are_refused() -> None:
    drawing = Drawing()
    at = drawing.node("LoadImage", "a.png", outs=["IMAGE"])
    for _ in range(2_000):
        at = drawing.node("Reroute", ins={"": ("*", (at, 0))}, outs=["IMAGE"])
    for _ in range(100):
        saved(drawing, (at, 0))
    with pytest.raises(BadRequest, match="more turns than"):
        graph_of(drawing.workflow())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("GetNode", "without a link"),
        ("SetNode", r"Export \(API\)"),
        ("Anything Everywhere", "only the editor"),
        ("workflow/mine", "make it a subgraph"),
    ],
)
def test_what_only_the_editor_can_follow_is_refused_with_advice(kind: str, words: str) -> None:
    drawing = Drawing()
    drawing.node(kind, "x", title="Mine")
    with pytest.raises(BadRequest, match=words) as refusal:
        read_editor_workflow(drawing.workflow())
    assert "node 1 (Mine)" in str(refusal.value)
    drawing.nodes[0]["mode"] = 2
    assert read_editor_workflow(drawing.workflow()).root.nodes, "a muted one does no harm"


def test_a_picture_only_the_editor_can_draw_is_refused() -> None:
    known = declared("Load3D", model=[["x.glb"]], image=["LOAD_3D", {}], width=["INT", {}])
    drawing = Drawing()
    drawing.node("Load3D", "x.glb", "upload3dmodel", "clear", "", 64)
    with pytest.raises(BadRequest, match="only the editor can draw"):
        graph_of(drawing.workflow(), known)


def within(levels: int) -> dict[str, Any]:
    """Draw subgraphs inside each other."""
    definitions: list[dict[str, Any]] = []
    for level in range(levels):
        inner = Drawing()
        inner.node("ImageInvert" if level == 0 else f"level{level - 1}")
        definitions.append(inner.subgraph(f"level{level}", {}, {}))
    outer = Drawing()
    outer.node(f"level{levels - 1}")
    return outer.workflow(*definitions)


def test_subgraphs_are_bounded_in_depth_and_number() -> None:
    assert len(graph_of(within(DEEPEST))) == 1
    for levels in (DEEPEST + 1, 3 * DEEPEST):
        with pytest.raises(BadRequest, match="inside each other"):
            read_editor_workflow(within(levels))
        upwards = within(levels)
        upwards["nodes"] = [{"id": n, "type": f"level{n}"} for n in range(levels)]
        with pytest.raises(BadRequest, match="inside each other"):
            read_editor_workflow(upwards)
    inner = Drawing()
    inner.node("again")
    outer = Drawing()
    outer.node("again")
    with pytest.raises(BadRequest, match="contains itself"):
        read_editor_workflow(outer.workflow(inner.subgraph("again", {}, {})))
    bomb = within(20)
    for definition in bomb["definitions"]["subgraphs"][1:]:
        definition["nodes"].append({**definition["nodes"][0], "id": 2})
    with pytest.raises(BadRequest, match=f"more than {MOST_NODES} nodes"):
        read_editor_workflow(bomb)


DAMAGES: list[tuple[dict[str, Any], str]] = [
    ({"nodes": 5}, "nodes is no list"),
    ({"nodes": ["x"]}, "node number 0 is no object"),
    ({"nodes": [{"type": "X"}]}, "node number 0 has no id"),
    ({"nodes": [{"id": 3}]}, "node 3 has no type"),
    ({"nodes": [{"id": 3, "type": "X"}, {"id": "3", "type": "Y"}]}, "two nodes have the id 3"),
    ({"nodes": [{"id": 3, "type": "X", "inputs": 1}]}, "node 3: inputs is no list"),
    ({"links": [7]}, "link number 0 is no link"),
    ({"links": [[1, {}, 0, 2, 0]]}, "link number 0 does not say"),
    ({"definitions": {"subgraphs": [{}]}}, "subgraph 0 has no id"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_workflow_is_refused_saying_where(damage: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read_editor_workflow({**simple(), **damage})


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something is in JSON data."""
    items: Any = ()
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
    elif isinstance(value, list):
        items = enumerate(cast("list[Any]", value))
    below = [one for key, item in items for one in places(item, (*here, key))]
    return [here, *below] if here else below


WHOLE = {"simple": simple(), "nested": nested(), "shown": with_painter("outer", 77)}
PLACES = {name: places(workflow) for name, workflow in WHOLE.items()}
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-30, 30)
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "1", "painter", "frame", "KSampler", "Reroute", "PrimitiveNode", "*"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(st.data())
def test_any_damaged_workflow_is_converted_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    workflow = copy.deepcopy(WHOLE[name])
    for *way, last in data.draw(st.lists(st.sampled_from(PLACES[name]), min_size=1, max_size=4)):
        at: Any = workflow
        try:
            for key in way:
                at = at[key]
            at[last] = data.draw(junk)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier damage took that place away
    try:
        graph = graph_of(workflow)
    except BadRequest:
        return
    json.dumps(graph)
    for node in graph.values():
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in graph
