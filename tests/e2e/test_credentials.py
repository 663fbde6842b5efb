"""The embedded parts accept the credentials in the files that docs/operations.md names."""

import json
import stat

import asyncpg
import boto3
from botocore.config import Config

from stack.settings import ROOT
from stack.supervisor import Stack

GUIDE = (ROOT / "docs/operations.md").read_text()


async def test_the_documented_file_has_the_database_address(stack: Stack) -> None:
    assert "`postgres/url`" in GUIDE
    file = stack.home.path / "postgres/url"
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    connection = await asyncpg.connect(file.read_text())
    assert await connection.fetchval("SELECT count(*) >= 0 FROM realtime_sessions")
    await connection.close()


def test_the_documented_file_has_the_object_store_keys(stack: Stack) -> None:
    assert "`s3/identities.json`" in GUIDE
    assert stack.s3 is not None
    file = stack.home.path / "s3/identities.json"
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    (key,) = json.loads(file.read_text())["identities"][0]["credentials"]
    client = boto3.client(
        "s3",
        endpoint_url=stack.s3.endpoint_url,
        region_name=stack.s3.region,
        aws_access_key_id=key["accessKey"],
        aws_secret_access_key=key["secretKey"],
        config=Config(proxies={}),
    )
    assert client.list_objects_v2(Bucket=stack.s3.bucket, MaxKeys=1)["ResponseMetadata"]["HTTPStatusCode"] == 200
    client.close()
