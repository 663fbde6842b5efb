"""Persistence on a real Postgres and a real S3 server, behind TCP proxies that can cut and stall, and a gRPC server on
loopback whose fake servicer follows the conventions of the real one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from persistence.config import PersistenceSettings
from persistence.postgres.database import Database, open_database
from persistence.s3.keys import SESSIONS_PREFIX
from persistence.s3.objects import ObjectStore, open_objects
from persistence.service import _CLOSE_SECONDS, open_persistence
from stack.settings import ROOT
from telemetry.deadline import Deadline
from tests.integration.persistence.client import Client
from tests.integration.persistence.fake_transcriber import FakeTranscriber, classify, serving
from tests.integration.persistence.harness import Harness
from tests.integration.persistence.proxy import Proxy


@pytest.fixture(scope="session")
def real_settings(postgres_url: str, s3: Any) -> PersistenceSettings:
    """The real servers, reached directly."""
    return PersistenceSettings(
        database_url=SecretStr(postgres_url),
        database_deadline_seconds=5.0,
        s3_endpoint_url=s3.endpoint_url,
        s3_bucket=s3.bucket,
        s3_region=s3.region,
        s3_access_key_id=SecretStr(s3.access_key_id),
        s3_secret_access_key=SecretStr(s3.secret_access_key),
        s3_deadline_seconds=3.0,
    )


@pytest.fixture
def make_settings(real_settings: PersistenceSettings, tmp_path: Path) -> Callable[..., PersistenceSettings]:
    def make(**changes: Any) -> PersistenceSettings:
        values: dict[str, Any] = {
            "spool_dir": tmp_path / "spool",
            "worker_id": f"test-{uuid.uuid4().hex[:12]}",
        }
        return PersistenceSettings(**real_settings.model_dump() | values | changes)

    return make


@pytest.fixture(scope="session")
async def database(real_settings: PersistenceSettings) -> AsyncIterator[Database]:
    async with open_database(real_settings) as database:
        yield database


@pytest.fixture(scope="session")
async def objects(real_settings: PersistenceSettings) -> AsyncIterator[ObjectStore]:
    async with open_objects(real_settings) as objects:
        await objects.ensure_bucket()
        yield objects


@pytest.fixture
async def empty_store(database: Database, objects: ObjectStore) -> None:
    """Deletes all sessions, for tests that compare everything that is stored.

    It also deletes the leases of killed servers, for which a repair would wait. No server outlives its test.
    """
    async with database.transaction() as connection:
        await connection.exec_driver_sql("TRUNCATE realtime_sessions CASCADE")
        await connection.exec_driver_sql("DELETE FROM workers")
    await objects.delete_all(await objects.list(SESSIONS_PREFIX))
    for key in await objects.uploads_below(SESSIONS_PREFIX):
        await objects.abort_uploads(key)


@pytest.fixture
async def tenant(postgres_url: str) -> uuid.UUID:
    """A separate tenant for the test."""
    tenant_id = uuid.uuid4()
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("INSERT INTO tenants (id, name) VALUES ($1, $2)", tenant_id, str(tenant_id))
    await connection.close()
    return tenant_id


@pytest.fixture
async def postgres_proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    url = urlsplit(postgres_url)
    async with Proxy(str(url.hostname), int(url.port or 5432)) as proxy:
        yield proxy


@pytest.fixture
async def s3_proxy(s3: Any) -> AsyncIterator[Proxy]:
    url = urlsplit(s3.endpoint_url)
    async with Proxy(str(url.hostname), int(url.port or 80)) as proxy:
        yield proxy


@pytest.fixture
def proxied(
    make_settings: Callable[..., PersistenceSettings], postgres_url: str, postgres_proxy: Proxy, s3_proxy: Proxy
) -> Callable[..., PersistenceSettings]:
    """Settings whose Postgres and S3 are reached through the proxies."""
    url = urlsplit(postgres_url)
    through = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{postgres_proxy.port}")).geturl()

    def make(**changes: Any) -> PersistenceSettings:
        values = {
            "database_url": SecretStr(through),
            "s3_endpoint_url": f"http://127.0.0.1:{s3_proxy.port}",
        }
        return make_settings(**values | changes)

    return make


@pytest.fixture
def build_harness(
    proxied: Callable[..., PersistenceSettings],
    database: Database,
    objects: ObjectStore,
    postgres_proxy: Proxy,
    s3_proxy: Proxy,
) -> Callable[..., Any]:
    @asynccontextmanager
    async def build(*, close_grace_seconds: float = 10.0, **changes: Any) -> AsyncIterator[Harness]:
        """`close_grace_seconds`: how long the storing of ended sessions may take when the harness closes."""
        settings = proxied(**changes)
        fake_transcriber, deadline = FakeTranscriber(), Deadline()
        async with AsyncExitStack() as stack:
            persistence = await stack.enter_async_context(open_persistence(settings, classify, deadline))
            stack.callback(deadline.begin, close_grace_seconds + _CLOSE_SECONDS)
            address = await stack.enter_async_context(serving(persistence, fake_transcriber))
            yield Harness(
                settings,
                database,
                objects,
                postgres_proxy,
                s3_proxy,
                persistence,
                fake_transcriber,
                address,
                settings.spool_dir,
            )

    return build


@pytest.fixture
async def harness(build_harness: Callable[..., Any]) -> AsyncIterator[Harness]:
    async with build_harness() as harness:
        yield harness


@pytest.fixture
def client_of() -> type[Client]:
    return Client


def environment_of(settings: PersistenceSettings) -> dict[str, str]:
    values = settings.model_dump()
    plain = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name, value in values.items()
        if value is not None
    }
    # The modules of this tree, not installed ones.
    here = {"PYTHONPATH": str(ROOT)}
    return {**os.environ, **here, **{f"DALSTON_{name.upper()}": value for name, value in plain.items()}}


@asynccontextmanager
async def _killable_server(settings: PersistenceSettings) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("killable_server.py")),
        env=environment_of(settings),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def a_killable_server() -> Callable[..., Any]:
    """Starts a recording server process that the test kills: yields the process and its address."""
    return _killable_server
