"""Draws workflows as ComfyUI's editor saves them, for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

Source = tuple[int, int]
"""A node and the place of its output."""

INPUT, OUTPUT = -10, -20
"""The nodes that stand for a subgraph's own inputs and outputs."""


class Drawing:
    """A graph in the making: the whole one, or a subgraph."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    def node(
        self,
        kind: str,
        *values: Any,
        ins: Mapping[str, tuple[str, Source | None]] | None = None,
        widgets: Mapping[str, tuple[str, Source | None]] | None = None,
        outs: Sequence[str] = (),
        **more: Any,
    ) -> int:
        """Draw a node; return its id.

        Args:
            kind: Its class, or a subgraph's id.
            values: Of its widgets, in order.
            ins: Type and source of its inputs, by name.
            widgets: The same of widgets that are inputs, too.
            outs: Types of its outputs.
            more: Further keys.
        """
        number = more.pop("id", len(self.nodes) + 1)
        inputs: list[dict[str, Any]] = []
        for name, (type_, source) in {**(ins or {}), **(widgets or {})}.items():
            slot: dict[str, Any] = {"name": name, "type": type_, "link": None}
            if name in (widgets or {}):
                slot["widget"] = {"name": name}
            if source is not None:
                slot["link"] = self.link(source, (number, len(inputs)), type_)
            inputs.append(slot)
        outputs = [{"name": one, "type": one} for one in outs]
        drawn: dict[str, Any] = {"id": number, "type": kind, "pos": [0, 0], "order": 0, "mode": 0}
        drawn |= {"inputs": inputs, "outputs": outputs, "properties": {}}
        self.nodes.append({**drawn, "widgets_values": [*values], **more})
        return number

    def link(self, source: Source, target: Source, type_: str = "*") -> int:
        """Draw a link; return its id."""
        self.links.append([len(self.links) + 1, *source, *target, type_])
        return len(self.links)

    def workflow(self, *subgraphs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole workflow."""
        drawn: dict[str, Any] = {"last_node_id": len(self.nodes), "last_link_id": len(self.links)}
        drawn |= {"nodes": self.nodes, "links": self.links, "groups": [], "version": 0.4}
        return {**drawn, "definitions": {"subgraphs": [*subgraphs]}} if subgraphs else drawn

    def subgraph(
        self, name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the definition of a subgraph, its links written as objects."""
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [dict(zip(names, link, strict=True)) for link in self.links]
        return {
            "id": name,
            "name": name,
            "inputNode": {"id": INPUT},
            "outputNode": {"id": OUTPUT},
            "inputs": [{"name": one, "type": type_} for one, type_ in inputs.items()],
            "outputs": [{"name": one, "type": type_} for one, type_ in outputs.items()],
            "nodes": self.nodes,
            "links": links,
        }


def sampling(
    drawing: Drawing,
    model: Source,
    clip: Source,
    vae: Source,
    *,
    prompt: str = "a lighthouse",
    seed: int = 5,
) -> Source:
    """Draw everything between the models and a picture of 64 x 64; return the picture."""
    texts = [
        drawing.node("CLIPTextEncode", text, ins={"clip": ("CLIP", clip)}, outs=["CONDITIONING"])
        for text in (prompt, "blurry")
    ]
    latent = drawing.node("EmptyLatentImage", 64, 64, 1, outs=["LATENT"])
    sampler = drawing.node(
        "KSampler",
        *(seed, "randomize", 2, 1.0, "euler", "normal", 1.0),
        ins={
            "model": ("MODEL", model),
            "positive": ("CONDITIONING", (texts[0], 0)),
            "negative": ("CONDITIONING", (texts[1], 0)),
            "latent_image": ("LATENT", (latent, 0)),
        },
        outs=["LATENT"],
        title="Sampler",
    )
    decoded = drawing.node(
        "VAEDecode",
        ins={"samples": ("LATENT", (sampler, 0)), "vae": ("VAE", vae)},
        outs=["IMAGE"],
    )
    return decoded, 0


def simple(checkpoint: str = "base.safetensors", **more: Any) -> dict[str, Any]:
    """Return the workflow everybody begins with: ids 1 checkpoint, 5 sampler, 7 saves."""
    drawing = Drawing()
    loader = drawing.node("CheckpointLoaderSimple", checkpoint, outs=["MODEL", "CLIP", "VAE"])
    picture = sampling(drawing, (loader, 0), (loader, 1), (loader, 2), **more)
    drawing.node("SaveImage", "ComfyUI", ins={"images": ("IMAGE", picture)})
    return drawing.workflow()
