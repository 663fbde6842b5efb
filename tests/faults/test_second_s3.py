"""The same promises on another S3 server, which is none of SeaweedFS's family."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from stack.ports import free_port
from stack.postgres import PostgresServer
from stack.process import running
from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy, every_third
from tests.faults.load import finish_all, stream_all, streams, until_killed
from tests.faults.servers import a_server
from tests.faults.world import FLUSH_SECONDS, LEASE_SECONDS, Bucket, Expected, World, a_world

STREAMS = 10


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("moto") / "moto.log"
    with running("moto", [sys.executable, "-m", "moto.server", "-p", str(port)], log=log) as process:
        process.wait_until(lambda: _answers(url), 60)
        yield url


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/moto-api/", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture
async def world(template_server: PostgresServer, moto: str, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(
        template_server.url, Bucket(moto, "key", "secret", f"moto-{uuid.uuid4().hex[:8]}"), tmp_path
    ) as world:
        yield world


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_sessions_short_and_long_are_stored(world: World) -> None:
    spool = world.new_spool()
    async with a_server(world.environment(spool), world.folder / "server.log") as server:
        async with streams(server, STREAMS) as clients:
            await stream_all(clients, 9)
            expected = await finish_all(clients)
        assert max(each.received for each in expected) > 2 * (5 << 20), "no session was long enough for parts"
        await world.settled()
        await world.compare(expected, statuses=("completed",))
        await world.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_killed_and_started_again(world: World) -> None:
    spool = world.new_spool()
    expected: list[Expected] = []
    for kill in range(10):
        async with (
            a_server(world.environment(spool), world.folder / "server.log") as server,
            streams(server, STREAMS, first_tag=kill * STREAMS + 1) as clients,
        ):
            expected += await until_killed(server, clients, random.uniform(4, 10))
    async with a_server(world.environment(spool), world.folder / "server.log"):
        await world.settled()
        await world.compare(expected)
        await world.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_killed_with_its_disk(world: World) -> None:
    lost, other = world.new_spool(), world.new_spool()
    async with a_server(world.environment(other), world.folder / "other.log"):
        async with (
            a_server(world.environment(lost), world.folder / "server.log") as server,
            streams(server, STREAMS) as clients,
        ):
            expected = await until_killed(server, clients, 10)
        await asyncio.to_thread(shutil.rmtree, lost)
        FIGURES.add("disks lost")
        await world.settled(LEASE_SECONDS * 2 + 30)
        await world.compare(expected, lost_seconds=FLUSH_SECONDS + 2)
        await world.until_nothing_is_left(other)


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fate", [Fate.FAIL_AFTER, Fate.LOSE])
async def test_every_third_answer_is_bad(world: World, fate: Fate) -> None:
    spool = world.new_spool()
    async with HttpProxy(*world.bucket.address) as proxy:
        environment = world.environment(spool, s3_port=proxy.port)
        async with a_server(environment, world.folder / "server.log") as server, streams(server, STREAMS) as clients:
            proxy.rule = every_third(fate)
            await stream_all(clients, 30)
            expected = await finish_all(clients)
            proxy.restore()
            await world.settled(90)
            await world.compare(expected, statuses=("completed",))
            await world.until_nothing_is_left(spool)
