"""Secrets that have the form of secrets leave no text we keep."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import EngineError, JobFailed, NotFound, StoreUnavailable
from stablequeue.hiding import remember, without_secrets
from stablequeue.servers import ServerConfig
from stablequeue.wire import open_client

SAID = [
    ("cannot fetch http://me:hunter2@host/x", "cannot fetch http://me:***@host/x"),
    ("postgresql+psycopg://me:p@ss@db/x: refused", "postgresql+psycopg://me:***@db/x: refused"),
    ("git clone https://ghp_0aB@host/x", "git clone https://***@host/x"),
    ("see https://host/a@b", "see https://host/a@b"),
    ("403 for https://s3/b/k?X-Amz-Date=1&X-Amz-Signature=ab12cd", ...),
    (
        "'https://host/x?token=abc&size=2' is gone",
        "'https://host/x?token=***&size=2' is gone",
    ),
    ("https://host/m?api_key=abc)", "https://host/m?api_key=***)"),
    ("https://a.net/c?sv=1&sig=x%2B%3D&se=2", "https://a.net/c?sv=1&sig=***&se=2"),
    ("sent Authorization: Basic bWU6eA==", "sent Authorization: Basic ***"),
    ('{"authorization": "Bearer abc.def"}', '{"authorization": "Bearer ***"}'),
    ("not allowed: Bearer eyJhbGciOi.J9", "not allowed: Bearer ***"),
    ("Basic information about the Bearer of news", ...),
    ("steps=20, cfg=7, token=3", ...),
]


@pytest.mark.parametrize(("text", "kept"), SAID)
def test_what_has_the_form_of_a_secret_is_hidden_and_the_rest_is_kept(
    text: str, kept: str | object
) -> None:
    if "X-Amz" in text:
        kept = text.replace("ab12cd", "***")
    assert without_secrets(text) == (text if kept is ... else kept)


@given(st.text(alphabet=st.sampled_from("aZ9 :/@?&;=.'\"-_\n"), max_size=80))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    once = without_secrets(f"https://{text} Authorization: {text}")
    assert without_secrets(once) == once


@pytest.mark.parametrize("kind", [EngineError, JobFailed, StoreUnavailable])
def test_errors_keep_none_of_what_others_say(kind: type[EngineError]) -> None:
    error = kind("comfy", "cannot read https://me:hunter2@host/x?sig=abc")
    for kept in (str(error), repr(error), error.detail, str(pickle.loads(pickle.dumps(error)))):
        assert "https://me:***@host/x?sig=***" in kept
        assert "hunter2" not in kept
    assert str(NotFound("no http://a:b@c/")) == "no http://a:***@c/"


async def test_what_a_server_echoes_of_our_credentials_is_hidden() -> None:
    fields = {"alias": "gpu-a", "type": "comfyui", "url": "http://127.0.0.1:9"}
    secrets = {"token": "tok-1234567", "username": "me", "password": "pass-1234567"}
    secrets |= {"ui_username": "me", "ui_password": "page-1234567"}
    async with open_client(ServerConfig.model_validate({**fields, **secrets})):
        said = "no user me:pass-1234567 (bWU6cGFzcy0xMjM0NTY3), nor page-1234567, tok-1234567"
        assert str(JobFailed("gpu-a", said)) == "gpu-a: no user me:*** (***), nor ***, ***"


def test_a_short_secret_is_not_looked_for_in_words() -> None:
    remember("", "cat")
    assert without_secrets("concatenated") == "concatenated"
