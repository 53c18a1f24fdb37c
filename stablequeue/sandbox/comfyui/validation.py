"""Judges a workflow before it is queued, as the real server does: same errors, same shapes.

Source: `POST /prompt` of ComfyUI 0.3.64, recording [19]. Two traps are kept: an error is filed
under the node whose validation raised, not under the one that links to it; a cycle is refused
without naming any node.
"""

import traceback
from dataclasses import dataclass, field
from typing import Any, cast

from stablequeue.sandbox.comfyui.nodes import NODES
from stablequeue.sandbox.comfyui.nodes.table import Host, Spec
from stablequeue.sandbox.comfyui.values import type_name

JSON = dict[str, Any]
_LONGEST_TOLD = 20
_DEEPEST = 400  # links in a row; the real server's recursion ends somewhere near
_CONVERTERS: dict[str, type] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass
class Verdict:
    """What the judgement says.

    Attributes:
        error: Set when nothing can be run.
        outputs: The output nodes to run.
        node_errors: By node; may be there although something can be run.
    """

    error: JSON | None = None
    outputs: list[str] = field(default_factory=list[str])
    node_errors: JSON = field(default_factory=dict[str, Any])


@dataclass
class _Found:
    valid: bool
    reasons: list[JSON] = field(default_factory=list[JSON])


def error(kind: str, message: str, details: str = "", **extra: Any) -> JSON:
    """Return an error as the server words it."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def validate(host: Host, prompt: Any, targets: Any = None) -> Verdict:
    """Judge `prompt`, converting its constant inputs in place.

    Args:
        host: Whose models and files count.
        prompt: As it was posted, of any type.
        targets: If not None, only these output nodes count.

    Raises:
        TypeError: The prompt is so odd that the real server fails (500).
        LookupError: Likewise.
    """
    outputs: list[str] = []
    for node_id in prompt:
        node = prompt[node_id]
        if "class_type" not in node:
            told = "Cannot execute because a node is missing the class_type property."
            return Verdict(error("invalid_prompt", told, f"Node ID '#{node_id}'"))
        known = NODES.get(node["class_type"])
        if known is None:
            told = f"Cannot execute because node {node['class_type']} does not exist."
            return Verdict(error("invalid_prompt", told, f"Node ID '#{node_id}'"))
        if known.output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(error("prompt_no_outputs", "Prompt has no outputs"))
    return _Judge(host, prompt).judge(outputs)


class _Judge:
    def __init__(self, host: Host, prompt: JSON) -> None:
        self.host, self.prompt = host, prompt
        self.found: dict[str, _Found] = {}
        self.open: set[str] = set()

    def judge(self, outputs: list[str]) -> Verdict:
        verdict = Verdict()
        reasons: list[JSON] = []
        for output in outputs:
            try:
                found = self.node(output)
            except Exception as problem:  # noqa: BLE001 - whatever hostile input makes it raise
                told = error("exception_during_validation", "Exception when validating node",
                             str(problem), exception_type=type_name(problem),
                             traceback=traceback.format_tb(problem.__traceback__))  # fmt: skip
                found = self.found[output] = _Found(False, [told])
            if found.valid:
                verdict.outputs.append(output)
                continue
            reasons += found.reasons
            self._blame(verdict, output)
        if not verdict.outputs:
            details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in reasons)
            verdict.error = error(
                "prompt_outputs_failed_validation", "Prompt outputs failed validation", details
            )
        return verdict

    def _blame(self, verdict: Verdict, output: str) -> None:
        """File every reason found so far under its node, and `output` as one that suffers."""
        for node_id, found in self.found.items():
            if found.valid or not found.reasons:
                continue
            entry = verdict.node_errors.setdefault(
                node_id,
                {
                    "errors": found.reasons,
                    "dependent_outputs": [],
                    "class_type": self.prompt[node_id]["class_type"],
                },
            )
            entry["dependent_outputs"].append(output)

    def node(self, node_id: str) -> _Found:
        """Judge one node and all before it."""
        if node_id in self.found:
            return self.found[node_id]
        if node_id in self.open or len(self.open) > _DEEPEST:
            message = "maximum recursion depth exceeded"
            raise RecursionError(message)
        inputs = self.prompt[node_id]["inputs"]
        known = NODES[self.prompt[node_id]["class_type"]]
        self.open.add(node_id)
        try:
            valid, reasons = True, list[JSON]()
            required, optional = known.required(self.host), known.optional(self.host)
            for name, spec in (required | optional).items():
                if name not in inputs:
                    if name in required:
                        reasons.append(
                            error("required_input_missing", "Required input is missing", name,
                                  input_name=name)
                        )  # fmt: skip
                    continue
                if isinstance(inputs[name], list):
                    reason, before = self.link(name, spec, inputs[name])
                    valid = valid and before
                else:
                    reason = self.constant(name, spec, inputs, name in known.taken_over)
                if reason:
                    reasons.append(reason)
            if known.check:
                reasons += [
                    error("custom_validation_failed", "Custom validation failed for node",
                          f"{name} - {problem}", input_name=name)
                    for name, problem in known.check(self.host, _constants(inputs)).items()
                ]  # fmt: skip
        finally:
            self.open.discard(node_id)
        found = self.found[node_id] = _Found(valid and not reasons, reasons)
        return found

    def link(self, name: str, spec: Spec, value: list[Any]) -> tuple[JSON | None, bool]:
        """Judge a link; return what is wrong with it, and whether the node before is valid."""
        told: JSON = {"input_name": name, "input_config": spec}
        if len(value) != 2:  # noqa: PLR2004 - node and output
            return (
                error(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name, **told, received_value=value,
                ),
                True,
            )  # fmt: skip
        source, slot = value
        before = NODES[self.prompt[source]["class_type"]]
        received = cast("tuple[Any, ...]", before.output)[slot]
        if not _fits(received, spec[0]):
            wanted = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
            return (
                error("return_type_mismatch", "Return type mismatch between linked nodes", wanted,
                      **told, received_type=received, linked_node=value),
                True,
            )  # fmt: skip
        try:
            return None, self.node(source).valid
        except Exception as problem:  # noqa: BLE001 - whatever hostile input makes it raise
            reason = error(
                "exception_during_inner_validation", "Exception when validating inner node",
                str(problem), **told, exception_message=str(problem),
                exception_type=type_name(problem),
                traceback=traceback.format_tb(problem.__traceback__), linked_node=value,
            )  # fmt: skip
            self.found[source] = _Found(False, [reason])
            return None, False

    def constant(self, name: str, spec: Spec, inputs: JSON, taken_over: bool) -> JSON | None:
        """Convert a constant in place and judge it; return what is wrong with it."""
        kind: Any = spec[0]
        limits: JSON = spec[1] if len(spec) > 1 else {}
        told: JSON = {"input_name": name, "input_config": spec}
        value = inputs[name]
        try:
            if isinstance(value, dict) and "__value__" in value:
                value = inputs[name] = cast("JSON", value)["__value__"]
            if isinstance(kind, str) and kind in _CONVERTERS:
                value = inputs[name] = _CONVERTERS[kind](value)
        except Exception as problem:  # noqa: BLE001 - whatever hostile input makes it raise
            return error(
                "invalid_input_type", f"Failed to convert an input value to a {kind} value",
                f"{name}, {value}, {problem}", **told, received_value=value,
                exception_message=str(problem),
            )  # fmt: skip
        if taken_over:
            return None
        if "min" in limits and value < limits["min"]:
            return error(
                "value_smaller_than_min", f"Value {value} smaller than min of {limits['min']}",
                name, **told, received_value=value,
            )  # fmt: skip
        if "max" in limits and value > limits["max"]:
            return error(
                "value_bigger_than_max", f"Value {value} bigger than max of {limits['max']}",
                name, **told, received_value=value,
            )  # fmt: skip
        if isinstance(kind, list):
            return self._chosen(name, spec, value)
        return None

    @staticmethod
    def _chosen(name: str, spec: Spec, value: Any) -> JSON | None:
        options: list[Any] = spec[0]
        if value in options:
            return None
        long = len(options) > _LONGEST_TOLD
        listed = f"(list of length {len(options)})" if long else str(options)
        return error(
            "value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}",
            input_name=name, input_config=None if long else spec, received_value=value,
        )  # fmt: skip


def _constants(inputs: JSON) -> JSON:
    return {name: value for name, value in inputs.items() if not isinstance(value, list)}


def _fits(received: Any, wanted: Any) -> bool:
    """Say whether an output type may go into an input; types may be lists separated by commas."""
    if received == wanted or "*" in (received, wanted):
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return not set(received.split(",")).isdisjoint(wanted.split(","))
