"""The tree of expected failures."""

import inspect
import pickle

import pytest

from stablequeue import errors
from stablequeue.errors import BadRequest, ModelMissing, QueueError, Unsupported

EVERY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, QueueError) and kind.__module__ == errors.__name__
]


def _made(kind: type[QueueError]) -> QueueError:
    if kind.__init__ is QueueError.__init__:
        return kind("what happened")
    needed = [
        parameter.name
        for parameter in inspect.signature(kind.__init__).parameters.values()
        if parameter.default is parameter.empty and parameter.name != "self"
    ]
    return kind(*needed)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_way_between_processes_and_is_one_line(
    kind: type[QueueError],
) -> None:
    error = _made(kind)

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is kind
    assert str(again) == str(error)
    assert "\n" not in str(error)


def test_codes_are_unique_so_that_scripts_can_tell_errors_apart() -> None:
    codes = [kind.code for kind in EVERY]

    assert len(codes) == len(set(codes))


def test_every_error_stands_in_the_tree_of_the_module() -> None:
    tree = str(errors.__doc__)

    assert [kind.__name__ for kind in EVERY if kind.__name__ not in tree] == []


def test_a_refusal_names_the_field_and_what_is_allowed() -> None:
    assert str(BadRequest("steps", "too many.", ["1 to 1000"])) == (
        "steps: too many. Allowed: 1 to 1000."
    )
    missing = ModelMissing("gpu", "checkpoint", "nope", ["nape", "note"])
    assert str(missing).startswith("gpu: checkpoint: there is no 'nope'")
    assert str(missing).endswith("Did you mean: nape, note?")
    assert "It offers: Euler" in str(Unsupported("gpu", "sampler", "not there", ["Euler"]))


def test_a_missing_model_says_what_kind_where_and_how_to_see_what_there_is() -> None:
    tag = str(ModelMissing("gpu", "prompt", "nope"))
    assert "prompt: there is no LoRA 'nope' on this server." in tag
    assert tag.endswith("stablequeue servers test gpu -v")
    everywhere = str(ModelMissing("any", "checkpoint", "nope"))
    assert "there is no 'nope' on any server." in everywhere
    assert everywhere.endswith("stablequeue servers test -v")
