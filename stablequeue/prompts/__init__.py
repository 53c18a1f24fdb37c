"""Pure functions over prompts and the texts that carry them."""

from stablequeue.prompts.comfy_graph import GraphSummary, request_from_comfy_prompt, summarise
from stablequeue.prompts.infotext import Infotext, format_infotext, parse_infotext
from stablequeue.prompts.infotext_requests import infotext_of, request_from_infotext
from stablequeue.prompts.lora_tags import add_tags, lift_tags

__all__ = [
    "GraphSummary",
    "Infotext",
    "add_tags",
    "format_infotext",
    "infotext_of",
    "lift_tags",
    "parse_infotext",
    "request_from_comfy_prompt",
    "request_from_infotext",
    "summarise",
]
