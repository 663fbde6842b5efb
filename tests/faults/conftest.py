"""Fixtures of the fault tests: real servers, and a scenario of its own for each test."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence.migrate import migrate
from stack.postgres import PostgresServer, postgres
from tests.faults.figures import FIGURES
from tests.faults.http_proxy import HttpProxy
from tests.faults.own_postgres import OwnPostgres
from tests.faults.proxy import Proxy
from tests.faults.scenario import Bucket, Scenario, a_scenario


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to run all cases, as `make faults` does."""
    return bool(request.config.getoption("faults") == "all")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """Random moments can be repeated: the seed is printed with the figures, and is one for all processes of a run."""
    run = getattr(request.config, "workerinput", {}).get("testrunuid")
    drawn = zlib.crc32(run.encode()) if run else random.SystemRandom().randrange(1 << 32)
    seed = int(os.environ.get("DALSTON_FAULTS_SEED") or drawn)
    FIGURES.note(f"seed of the random moments: {seed} (DALSTON_FAULTS_SEED)")
    return seed


@pytest.fixture(autouse=True)
def random_moments(request: pytest.FixtureRequest, seed: int) -> None:
    """Makes the random moments of a test independent of the other tests of its process."""
    random.seed(f"{seed} {request.node.nodeid}")


@pytest.fixture(scope="session")
def template_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres that keeps what it has confirmed, however it is stopped."""
    with postgres(tmp_path_factory.mktemp("postgres"), durable=True) as server:
        migrate(server.url)
        yield server


@pytest.fixture
async def scenario(template_server: PostgresServer, s3: Any, tmp_path: Path) -> AsyncIterator[Scenario]:
    bucket = Bucket(s3.endpoint_url, s3.access_key_id, s3.secret_access_key, f"faults-{uuid.uuid4().hex[:8]}")
    async with a_scenario(template_server.url, bucket, tmp_path) as scenario:
        yield scenario


@pytest.fixture
async def postgres_proxy(template_server: PostgresServer) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", template_server.port) as proxy:
        yield proxy


@pytest.fixture
async def database_proxy() -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", 1) as proxy:
        yield proxy


@pytest.fixture
async def own_postgres(tmp_path: Path, database_proxy: Proxy) -> AsyncIterator[OwnPostgres]:
    own = OwnPostgres(tmp_path / "postgres", database_proxy)
    try:
        await asyncio.to_thread(migrate, own.start().url)
        yield own
    finally:
        own.close()


@pytest.fixture
async def own_scenario(
    own_postgres: OwnPostgres, database_proxy: Proxy, s3: Any, tmp_path: Path
) -> AsyncIterator[Scenario]:
    """A scenario whose database is the one that is stopped."""
    bucket = Bucket(s3.endpoint_url, s3.access_key_id, s3.secret_access_key, f"faults-{uuid.uuid4().hex[:8]}")
    async with a_scenario(own_postgres.server.url, bucket, tmp_path) as scenario:
        scenario.database_url = scenario.database_url.replace(
            f":{own_postgres.server.port}/", f":{database_proxy.port}/"
        )
        yield scenario


@pytest.fixture
async def s3_proxy(scenario: Scenario) -> AsyncIterator[Proxy]:
    async with Proxy(*scenario.bucket.address) as proxy:
        yield proxy


@pytest.fixture
async def s3_http(scenario: Scenario) -> AsyncIterator[HttpProxy]:
    async with HttpProxy(*scenario.bucket.address) as proxy:
        yield proxy


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("faults")
    here = Path(__file__).parent

    def is_wanted(item: pytest.Item) -> bool:
        if wanted == "all" or not item.path.is_relative_to(here):
            return True
        return wanted == "some" and not item.get_closest_marker("long")

    left_out = [item for item in items if not is_wanted(item)]
    items[:] = [item for item in items if is_wanted(item)]
    config.hook.pytest_deselected(items=left_out)
