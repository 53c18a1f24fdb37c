"""An S3 service in its own process: moto's server on a free port of loopback."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from pydantic import SecretStr

from stablequeue.storage import S3StoreConfig

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

START_LIMIT_S = 40.0
_USER = "AKIATESTTESTTEST"
_KEY = "not-a-real-secret-key"


def free_port() -> int:
    """Return a port of loopback nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_answering(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Return when `url` answers; fail loudly when the process ends or takes too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            msg = f"moto's server ended with {process.returncode}"
            raise RuntimeError(msg)
        try:
            httpx.get(url, timeout=1, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    msg = f"moto's server did not answer within {START_LIMIT_S} s"
    raise RuntimeError(msg)


@contextmanager
def serve_s3() -> Generator[str]:
    """Run moto's server for the length of the block; the value is its URL."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_answering(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@cache
def _client(url: str) -> "S3Client":
    """Return a client; making one takes a tenth of a second."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=_USER,
        aws_secret_access_key=_KEY,
    )


def make_bucket(url: str, bucket: str) -> S3StoreConfig:
    """Make a bucket and return the configuration of a store in it."""
    _client(url).create_bucket(Bucket=bucket)
    return S3StoreConfig(
        name="bucket",
        bucket=bucket,
        endpoint_url=url,
        region="us-east-1",
        access_key=_USER,
        secret_key=SecretStr(_KEY),
    )


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """URL of an S3 service that lives as long as the test run."""
    with serve_s3() as url:
        yield url
