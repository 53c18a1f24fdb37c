"""How the client meets a Prefect API that is busy, broken, foreign or absent: real sockets."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stablequeue.errors import NotFound, PrefectRefused, PrefectUnreachable, SettingsError
from stablequeue.prefect_api import PrefectApi


@dataclass
class Script:
    """What the server answers, in order; the last answer repeats."""

    url: str = ""
    answers: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    delay_s: float = 0.0
    seen: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length).decode()
            script.seen.append((self.command, self.path, body))
            time.sleep(script.delay_s)
            status, text = script.answers[0] if len(script.answers) == 1 else script.answers.pop(0)
            if status == 0:  # break the connection
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/api"
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_locked_database_is_tried_again(script: Script) -> None:
    script.answers = [(503, ""), (503, "{}"), (200, "true")]
    with PrefectApi(script.url) as api:
        assert api.healthy()
    assert len(script.seen) == 3


def test_one_that_stays_locked_is_unreachable_not_refused(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stablequeue.prefect_api.transport._BACKOFF_S", (0.0, 0.0))
    script.answers = [(503, '{"exception_message": "Service Unavailable"}')]
    with (
        PrefectApi(script.url) as api,
        pytest.raises(PrefectUnreachable, match="failing") as caught,
    ):
        api.healthy()
    assert caught.value.retryable
    assert len(script.seen) == 3


def test_an_absent_server_says_how_to_start_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api"
        with PrefectApi(url) as api, pytest.raises(PrefectUnreachable, match="stablequeue up"):
            api.healthy()


def test_a_silent_server_is_unreachable(script: Script) -> None:
    script.answers, script.delay_s = [(200, "true")], 1.0
    with (
        PrefectApi(script.url, timeout_s=0.1) as api,
        pytest.raises(PrefectUnreachable, match="does not answer in time"),
    ):
        api.healthy()


def test_a_broken_connection_is_unreachable(script: Script) -> None:
    script.answers = [(0, "")]
    with PrefectApi(script.url) as api, pytest.raises(PrefectUnreachable, match="lost"):
        api.healthy()


REFUSALS: list[tuple[int, object, str]] = [
    (409, {"detail": "Error creating flow run:\n 'a' is  required"}, "'a' is required"),
    (422, {"exception_detail": [{"loc": ["body", "x", 0], "msg": "no"}]}, "x.0: no"),
    (422, {"exception_detail": [{"loc": [], "msg": "no"}]}, "422): no"),
    (403, {"exception_message": "CSRF"}, "CSRF"),
    (400, ["odd"], "odd"),
    (400, "text", "text"),
    (400, {}, "400"),
]


@pytest.mark.parametrize(("status", "body", "reason"), REFUSALS)
def test_a_refusal_carries_prefects_reason_in_one_line(
    script: Script, status: int, body: object, reason: str
) -> None:
    script.answers = [(status, json.dumps(body))]
    with PrefectApi(script.url) as api, pytest.raises(PrefectRefused) as caught:
        api.call("POST", "flow_runs/", {})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caught.value.retryable
    assert len(script.seen) == 1


def test_an_endless_reason_is_cut(script: Script) -> None:
    script.answers = [(409, json.dumps({"detail": "word " * 10_000}))]
    with PrefectApi(script.url) as api, pytest.raises(PrefectRefused) as caught:
        api.call("POST", "flow_runs/", {})
    assert len(str(caught.value)) < 400


def test_refused_credentials_say_what_to_set_and_do_not_show_them(script: Script) -> None:
    script.answers = [(401, '{"exception_message": "Unauthorized"}')]
    with (
        PrefectApi(script.url, "me:canary-password") as api,
        pytest.raises(PrefectRefused, match="prefect_auth") as caught,
    ):
        api.healthy()
    assert "canary" not in str(caught.value)


def test_something_else_on_the_port_is_told(script: Script) -> None:
    script.answers = [(200, "<html>router</html>")]
    with PrefectApi(script.url) as api, pytest.raises(PrefectRefused, match="not as Prefect"):
        api.healthy()


def test_a_server_error_is_worth_another_try_later(script: Script) -> None:
    script.answers = [(500, "boom")]
    with PrefectApi(script.url) as api, pytest.raises(PrefectUnreachable, match="500: boom"):
        api.healthy()


def test_what_is_not_there_says_so(script: Script) -> None:
    script.answers = [(404, "{}")]
    with PrefectApi(script.url) as api, pytest.raises(NotFound, match="no run abc"):
        api.read_run("abc")


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "ftp://a/api", "http://a:99999/"])
def test_an_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="prefect_api_url"):
        PrefectApi(url)


def test_pages_go_on_until_a_short_one_and_each_row_comes_once(script: Script) -> None:
    first = [{"id": str(number)} for number in range(200)]
    second = [{"id": "199"}, {"id": "200"}]  # one slipped over the border meanwhile
    script.answers = [(200, json.dumps(first)), (200, json.dumps(second))]
    with PrefectApi(script.url) as api:
        rows = [row["id"] for row in api.pages("flow_runs/filter", {})]
    assert rows == [str(number) for number in range(201)]
    assert [json.loads(body)["offset"] for _, _, body in script.seen] == [0, 200]


def test_a_limit_ends_the_pages_early(script: Script) -> None:
    script.answers = [(200, json.dumps([{"id": str(number)} for number in range(200)]))]
    with PrefectApi(script.url) as api:
        assert len(list(api.pages("flow_runs/filter", {}, limit=3))) == 3
    assert len(script.seen) == 1
