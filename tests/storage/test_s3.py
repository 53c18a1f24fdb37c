# pyright: reportPrivateUsage=false
"""The S3 store's own dangers, over HTTP."""

import hashlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr, ValidationError

from stablequeue.errors import NotFound, StoreUnavailable
from stablequeue.storage import S3StoreConfig
from stablequeue.storage.s3 import S3Store
from tests.support.s3 import free_port, make_bucket

KEY = "2026-11-21/143502-a-cat-s7-1a2b3c4d-0.png"
CANARY = "canary-5f0c"


def put(store: S3Store, picture: Path) -> str:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    return store.put(picture, KEY, sha256=digest, mime="image/png").key


def config(url: str, **changes: Any) -> S3StoreConfig:
    plain = S3StoreConfig(
        name="bucket",
        bucket="no-such-bucket",
        endpoint_url=url,
        region="us-east-1",
        access_key="canary-access-77aa",
        secret_key=SecretStr(CANARY),
        attempts=1,
        connect_timeout_s=2,
        read_timeout_s=5,
    )
    return plain.model_copy(update=changes)


@pytest.fixture
def bucket(s3_url: str) -> S3StoreConfig:
    return make_bucket(s3_url, f"b-{uuid4().hex}")


def test_objects_lie_below_the_prefix(bucket: S3StoreConfig, picture: Path) -> None:
    store = S3Store(bucket.model_copy(update={"prefix": "studio/pictures"}))
    key = put(store, picture)
    assert key == KEY
    assert store.locate(key) == f"s3://{bucket.bucket}/studio/pictures/{KEY}"
    plain = S3Store(bucket)
    assert plain.exists(f"studio/pictures/{KEY}")


def test_type_and_hash_travel_with_the_object(bucket: S3StoreConfig, picture: Path) -> None:
    store = S3Store(bucket)
    put(store, picture)
    head = store._client.head_object(Bucket=bucket.bucket, Key=KEY)
    assert head["ContentType"] == "image/png"
    assert head["Metadata"]["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()


def test_an_object_of_somebody_else_is_not_overwritten(
    bucket: S3StoreConfig, picture: Path
) -> None:
    store = S3Store(bucket)
    store._client.put_object(Bucket=bucket.bucket, Key=KEY, Body=b"theirs")
    assert put(store, picture) == KEY.replace(".png", "-2.png")
    with store.open(KEY) as stream:
        assert stream.read() == b"theirs"


def test_an_object_that_appears_between_look_and_upload_survives(
    bucket: S3StoreConfig, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(bucket)
    look = store._sha256_of

    def look_then_lose(key: str) -> str | None:
        found = look(key)
        if key == KEY and found is None:
            store._client.put_object(Bucket=bucket.bucket, Key=KEY, Body=b"theirs")
        return found

    monkeypatch.setattr(store, "_sha256_of", look_then_lose)
    assert put(store, picture) == KEY.replace(".png", "-2.png")
    with store.open(KEY) as stream:
        assert stream.read() == b"theirs"


def test_a_service_without_conditional_writes_is_used_without(
    bucket: S3StoreConfig, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(bucket)
    send = store._client.put_object
    refused: list[str] = []

    def old_service(**options: Any) -> Any:
        if "IfNoneMatch" in options:
            refused.append(options["Key"])
            options["Body"].read()
            answer: Any = {"Error": {"Code": "NotImplemented", "Message": "A header"}}
            raise ClientError(answer, "PutObject")
        return send(**options)

    monkeypatch.setattr(store._client, "put_object", old_service)
    assert put(store, picture) == KEY
    with store.open(KEY) as stream:
        assert stream.read() == picture.read_bytes()
    store.delete(KEY)
    assert put(store, picture) == KEY
    assert len(refused) == 1


def test_a_large_object_can_be_read_in_pieces(bucket: S3StoreConfig, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * 12_000)
    store = S3Store(bucket)
    put(store, source)
    pieces: list[bytes] = []
    with store.open(KEY) as stream:
        while piece := stream.read(100_000):
            pieces.append(piece)
    assert b"".join(pieces) == source.read_bytes()
    assert len(pieces) > 10


def test_a_missing_bucket_says_so(s3_url: str, picture: Path) -> None:
    store = S3Store(config(s3_url))
    for use in (lambda: put(store, picture), store.check):
        with pytest.raises(StoreUnavailable, match="there is no bucket no-such-bucket") as caught:
            use()
        assert "Create it" in str(caught.value)


def test_a_missing_object_in_a_bucket_is_not_an_outage(bucket: S3StoreConfig) -> None:
    with pytest.raises(NotFound, match="s3://"):
        S3Store(bucket).open(KEY)


def test_a_service_that_is_down_is_an_outage(picture: Path) -> None:
    store = S3Store(config(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(StoreUnavailable, match="no connection"):
        put(store, picture)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDenied", "refused our credentials"),
        ("403", "refused our credentials"),
        ("InvalidAccessKeyId", "refused our credentials"),
        ("ExpiredToken", "refused our credentials"),
        ("RequestTimeTooSkewed", "clock"),
        ("PermanentRedirect", "region"),
        ("XMinioStorageFull", "no room"),
        ("SlowDown", "answered SlowDown"),
    ],
)
def test_refusals_give_advice_and_no_secret(
    s3_url: str, picture: Path, monkeypatch: pytest.MonkeyPatch, code: str, advice: str
) -> None:
    store = S3Store(config(s3_url))

    def refuse(**_: Any) -> None:
        message = f"key canary-access-77aa with {CANARY} is wrong"
        answer: Any = {"Error": {"Code": code, "Message": message}}
        raise ClientError(answer, "HeadObject")

    monkeypatch.setattr(store._client, "head_object", refuse)
    with pytest.raises(StoreUnavailable, match=advice) as caught:
        put(store, picture)
    text = str(caught.value)
    assert "canary" not in text
    assert caught.value.__cause__ is None
    assert "\n" not in text


def test_no_credentials_at_all_says_so(
    s3_url: str, picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_CANARY_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store(config(s3_url, access_key="", secret_key=SecretStr("")))
    with pytest.raises(StoreUnavailable, match="there are no credentials"):
        put(store, picture)


def test_a_bad_bucket_name_is_an_answer_not_a_traceback(s3_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="not valid"):
        S3Store(config(s3_url, bucket="No Such/Bucket")).check()


def test_a_bad_port_is_an_answer_not_a_traceback() -> None:
    with pytest.raises(StoreUnavailable):
        S3Store(config("http://127.0.0.1:99999999")).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint_url": "http://user:password@example.com"},
        {"endpoint_url": "ftp://example.com"},
        {"endpoint_url": "https://example.com/?X-Amz-Signature=1"},
        {"prefix": "../other"},
        {"access_key": "only half"},
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        S3StoreConfig.model_validate({"bucket": "b", **changes})


def test_a_configuration_never_shows_its_secret() -> None:
    shown = config("http://127.0.0.1:1")
    assert CANARY not in repr(shown)
    assert CANARY not in shown.model_dump_json()
