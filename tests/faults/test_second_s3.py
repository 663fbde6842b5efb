"""The same promises with an S3 server of another implementation than SeaweedFS."""

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
from tests.faults.scenario import FLUSH_SECONDS, LEASE_SECONDS, Bucket, Expected, Scenario, a_scenario
from tests.faults.servers import a_server

STREAMS = 10


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of moto."""
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
async def scenario(template_server: PostgresServer, moto: str, tmp_path: Path) -> AsyncIterator[Scenario]:
    async with a_scenario(
        template_server.url, Bucket(moto, "key", "secret", f"moto-{uuid.uuid4().hex[:8]}"), tmp_path
    ) as scenario:
        yield scenario


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_sessions_short_and_long_are_stored(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        async with streams(server, STREAMS) as clients:
            await stream_all(clients, 9)
            expected = await finish_all(clients)
        assert max(each.received for each in expected) > 2 * (5 << 20), "no session was long enough for parts"
        await scenario.settled()
        await scenario.compare(expected, statuses=("completed",))
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_killed_and_started_again(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    expected: list[Expected] = []
    for kill in range(10):
        async with (
            a_server(scenario.environment(spool), scenario.folder / "server.log") as server,
            streams(server, STREAMS, first_tag=kill * STREAMS + 1) as clients,
        ):
            expected += await until_killed(server, clients, random.uniform(4, 10))
    async with a_server(scenario.environment(spool), scenario.folder / "server.log"):
        await scenario.settled()
        await scenario.compare(expected)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_killed_with_its_disk(scenario: Scenario) -> None:
    lost, other = scenario.new_spool(), scenario.new_spool()
    async with a_server(scenario.environment(other), scenario.folder / "other.log"):
        async with (
            a_server(scenario.environment(lost), scenario.folder / "server.log") as server,
            streams(server, STREAMS) as clients,
        ):
            expected = await until_killed(server, clients, 10)
        await asyncio.to_thread(shutil.rmtree, lost)
        FIGURES.add("disks lost")
        await scenario.settled(LEASE_SECONDS * 2 + 30)
        await scenario.compare(expected, lost_seconds=FLUSH_SECONDS + 2)
        await scenario.until_nothing_is_left(other)


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fate", [Fate.FAIL_AFTER, Fate.LOSE])
async def test_every_third_answer_is_bad(scenario: Scenario, fate: Fate) -> None:
    spool = scenario.new_spool()
    async with HttpProxy(*scenario.bucket.address) as proxy:
        environment = scenario.environment(spool, s3_port=proxy.port)
        async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
            proxy.rule = every_third(fate)
            await stream_all(clients, 30)
            expected = await finish_all(clients)
            proxy.restore()
            await scenario.settled(90)
            await scenario.compare(expected, statuses=("completed",))
            await scenario.until_nothing_is_left(spool)
