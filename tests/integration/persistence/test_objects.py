"""The object store on a real S3 server."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aioboto3
import pytest
from pydantic import SecretStr

from domain.errors import StorageUnavailable
from persistence.errors import ObjectNotFound, ObjectStoreUnavailable
from persistence.s3 import objects as objects_module
from persistence.s3.objects import PART_BYTES, ObjectStore, open_objects


async def read(objects: ObjectStore, key: str) -> bytes:
    size, chunks = await objects.get(key)
    data = b"".join([chunk async for chunk in chunks])
    assert len(data) == size
    return data


async def parts(*all_parts: bytes) -> AsyncIterator[bytes]:
    for part in all_parts:
        yield part


@pytest.fixture
def key() -> str:
    return f"test/{uuid.uuid4().hex}"


async def test_an_object_can_be_read_and_replaced(objects: ObjectStore, key: str) -> None:
    await objects.put(key, b"first", "text/plain")
    await objects.put(key, b"second", "text/plain")
    assert await read(objects, key) == b"second"
    assert await objects.size(key) == 6


async def test_an_empty_object_can_be_read(objects: ObjectStore, key: str) -> None:
    await objects.put(key, b"", "text/plain")
    assert await read(objects, key) == b""


async def test_an_object_of_parts_can_be_read(objects: ObjectStore, key: str) -> None:
    data = [os.urandom(PART_BYTES), os.urandom(PART_BYTES), os.urandom(777)]
    await objects.put_parts(key, parts(*data), "audio/wav")
    assert await read(objects, key) == b"".join(data)


async def test_chunks_are_small(objects: ObjectStore, key: str) -> None:
    await objects.put(key, bytes(300_000), "audio/wav")
    _, chunks = await objects.get(key)
    assert max([len(chunk) async for chunk in chunks]) <= 65_536


async def test_abandoned_downloads_hold_no_connection(objects: ObjectStore, key: str) -> None:
    await objects.put(key, bytes(3_000_000), "audio/wav")
    for _ in range(40):  # more than there are connections
        _, chunks = await objects.get(key)
        async for _chunk in chunks:
            break
        await chunks.aclose()  # type: ignore[attr-defined]
        await objects.get(key)
    assert await objects.size(key) == 3_000_000


async def test_a_deleted_object_is_missing_and_deletion_can_be_repeated(objects: ObjectStore, key: str) -> None:
    await objects.put(key, b"x", "text/plain")
    await objects.delete(key)
    await objects.delete(key)
    with pytest.raises(ObjectNotFound):
        await objects.get(key)


async def test_an_unfinished_upload_is_aborted_by_the_next_and_by_deletion(objects: ObjectStore, key: str) -> None:
    client = objects._client
    bucket = objects._bucket
    await client.create_multipart_upload(Bucket=bucket, Key=key)
    await client.create_multipart_upload(Bucket=bucket, Key=f"{key}-other")
    await objects.put_parts(key, parts(bytes(PART_BYTES), b"end"), "audio/wav")
    uploads = (await client.list_multipart_uploads(Bucket=bucket, Prefix=key)).get("Uploads", [])
    assert [upload["Key"] for upload in uploads] == [f"{key}-other"]
    await objects.delete(f"{key}-other")
    assert not (await client.list_multipart_uploads(Bucket=bucket, Prefix=key)).get("Uploads")


async def test_a_missing_bucket_is_created(make_settings: Callable[..., Any]) -> None:
    async with open_objects(make_settings(s3_bucket=f"made-{uuid.uuid4().hex[:8]}")) as objects:
        await objects.ensure_bucket()
        await objects.ensure_bucket()
        await objects.put("x", b"1", "text/plain")


async def test_a_call_is_repeated_after_a_transient_failure(
    proxied: Callable[..., Any], s3_proxy: Any, key: str
) -> None:
    async with open_objects(proxied()) as objects:
        await objects.put(key, b"1", "text/plain")
        s3_proxy.refuse()
        putting = asyncio.create_task(objects.put(key, b"2", "text/plain"))
        await asyncio.sleep(0.3)
        s3_proxy.restore()
        await putting
        assert await read(objects, key) == b"2"


async def test_an_unreachable_or_hung_server_raises_storage_unavailable(
    proxied: Callable[..., Any], s3_proxy: Any, key: str
) -> None:
    async with open_objects(proxied(s3_deadline_seconds=0.4)) as objects:
        s3_proxy.refuse()
        with pytest.raises(StorageUnavailable):
            await objects.put(key, b"1", "text/plain")
        s3_proxy.restore()
        s3_proxy.stall()
        async with asyncio.timeout(8):
            with pytest.raises(StorageUnavailable):
                await objects.put(key, bytes(1_000_000), "text/plain")
        s3_proxy.cut()
        s3_proxy.restore()


async def test_missing_credentials_are_reported_with_their_settings(
    make_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(objects_module, "_session", aioboto3.Session)
    async with open_objects(make_settings(s3_access_key_id=None, s3_secret_access_key=None)) as objects:
        with pytest.raises(
            ObjectStoreUnavailable,
            match="no credentials for S3: set DALSTON_S3_ACCESS_KEY_ID and DALSTON_S3_SECRET_ACCESS_KEY",
        ):
            await objects.ensure_bucket()


@pytest.mark.parametrize("wrong", ["s3_access_key_id", "s3_secret_access_key"])
async def test_rejected_credentials_are_reported_with_their_settings(
    make_settings: Callable[..., Any], wrong: str, key: str
) -> None:
    async with open_objects(make_settings(**{wrong: SecretStr("wrong")})) as objects:
        for call in (objects.ensure_bucket(), objects.put(key, b"1", "text/plain")):
            with pytest.raises(ObjectStoreUnavailable, match=r"rejects the credentials.* DALSTON_S3_ACCESS_KEY_ID"):
                await call


async def test_a_download_continues_after_a_lost_connection(
    proxied: Callable[..., Any], s3_proxy: Any, objects: ObjectStore, key: str
) -> None:
    data = os.urandom(3_000_000)
    await objects.put(key, data, "audio/wav")
    async with open_objects(proxied()) as through:
        _, chunks = await through.get(key)
        first = await anext(chunks)
        s3_proxy.cut()
        assert first + b"".join([chunk async for chunk in chunks]) == data


async def test_an_outage_during_a_download_is_an_error(
    proxied: Callable[..., Any], s3_proxy: Any, objects: ObjectStore, key: str
) -> None:
    await objects.put(key, bytes(3_000_000), "audio/wav")
    async with open_objects(proxied(s3_deadline_seconds=1.0)) as through:
        _, chunks = await through.get(key)
        await anext(chunks)
        s3_proxy.refuse()
        with pytest.raises(StorageUnavailable):
            async for _ in chunks:
                pass


async def test_the_replacement_of_an_object_during_its_download_is_an_error(objects: ObjectStore, key: str) -> None:
    await objects.put(key, bytes(3_000_000), "audio/wav")
    _, chunks = await objects.get(key)
    await anext(chunks)
    await objects.put(key, b"1" * 3_000_000, "audio/wav")
    with pytest.raises(StorageUnavailable):
        async for _ in chunks:
            pass


async def test_stalled_readers_hold_no_connection(objects: ObjectStore, key: str) -> None:
    await objects.put(key, bytes(3_000_000), "audio/wav")
    waiting = []
    for _ in range(40):  # more than there are connections
        _, chunks = await objects.get(key)
        await anext(chunks)
        waiting.append(chunks)
    async with asyncio.timeout(5):
        assert len(await read(objects, key)) == 3_000_000
    for chunks in waiting:
        await chunks.aclose()


async def test_a_wrong_key_is_rejected_without_retries(make_settings: Callable[..., Any]) -> None:
    from pydantic import SecretStr

    async with open_objects(make_settings(s3_secret_access_key=SecretStr("wrong"))) as objects:
        async with asyncio.timeout(2):
            with pytest.raises(StorageUnavailable):
                await objects.put("x", b"1", "text/plain")
