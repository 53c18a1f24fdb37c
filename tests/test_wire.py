"""What failed requests tell of a server."""

import socket
from collections.abc import Iterator

import pytest

from stablequeue.engines import open_engine
from stablequeue.errors import EngineUnreachable
from stablequeue.servers import ServerConfig
from stablequeue.wire import nothing_listens


async def _failure(port: int, kind: str) -> EngineUnreachable:
    config = {"alias": "s", "type": kind, "url": f"http://127.0.0.1:{port}"}
    server = ServerConfig.model_validate({**config, "read_timeout_s": 0.2})
    async with open_engine(server) as engine:
        with pytest.raises(EngineUnreachable) as failed:
            await engine.probe()
    return failed.value


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """Give a port that is ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("kind", ["comfyui", "forge"])
async def test_a_refused_connection_tells_that_no_process_listens_and_silence_does_not(
    bound: socket.socket, kind: str
) -> None:
    port: int = bound.getsockname()[1]
    assert not nothing_listens(await _failure(port, kind))
    bound.close()
    assert nothing_listens(await _failure(port, kind))
