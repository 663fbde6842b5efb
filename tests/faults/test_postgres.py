"""P5: running streams outlive Postgres, catch up, and a new one that asks for storage is refused at once."""

from __future__ import annotations

import asyncio
import random
import signal

import grpc
import pytest

from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.load import finish_all, stream_all, streams, until_killed
from tests.faults.own_postgres import OwnPostgres
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario
from tests.faults.servers import ServerProcess, a_server

STREAMS = 10


async def refusal(server: ServerProcess) -> float:
    """Requests a new session with storage; returns how long the refusal took."""
    client = PatternClient(server.channel(), tag=60)
    began = asyncio.get_running_loop().time()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(20):
                await client.begin()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        return asyncio.get_running_loop().time() - began
    finally:
        await client.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["stopped", pytest.param("immediate", marks=pytest.mark.long)])
async def test_postgres_stops_and_comes_back(
    own_scenario: Scenario, own_postgres: OwnPostgres, full: bool, how: str
) -> None:
    scenario, spool = own_scenario, own_scenario.new_spool()
    away = (30 if full else 5) if how == "stopped" else 1
    environment = scenario.environment(spool, lease_seconds=60)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        await stream_all(clients, 3)
        await own_postgres.stop(signal.SIGINT if how == "stopped" else signal.SIGQUIT)
        streaming = asyncio.create_task(stream_all(clients, away + 4))
        await asyncio.sleep(away / 2)
        seconds = await refusal(server)
        FIGURES.note(f"a session that cannot be recorded is refused within {seconds:.1f} s")
        await asyncio.sleep(away / 2)
        own_postgres.start()
        await streaming
        FIGURES.add("seconds without Postgres", away)
        assert all(client.is_open for client in clients), "a stream was ended by its storage"
        async with streams(server, 2, first_tag=40) as later:
            await stream_all(later, 1)
            expected = await finish_all([*clients, *later])
        await scenario.settled(60)
        await scenario.compare(expected, statuses=("completed",))
        await scenario.until_nothing_is_left(spool)
    assert seconds < 10


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_killed_while_postgres_is_away(own_scenario: Scenario, own_postgres: OwnPostgres) -> None:
    """P2 and P5 together: what never reached Postgres is in the spool."""
    scenario, spool = own_scenario, own_scenario.new_spool()
    environment = scenario.environment(spool)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        await stream_all(clients, 2)
        await own_postgres.stop(signal.SIGQUIT)
        expected = await until_killed(server, clients, 3)
    own_postgres.start()
    async with a_server(environment, scenario.folder / "server.log"):
        await scenario.settled()
        await scenario.compare(expected)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_connections_are_cut_in_mid_transaction(scenario: Scenario, postgres_proxy: Proxy) -> None:
    """Before a statement arrives, after it, and between a commit and its answer."""
    spool = scenario.new_spool()
    environment = scenario.environment(spool, postgres_port=postgres_proxy.port)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        streaming = asyncio.create_task(stream_all(clients, 60))
        cuts = 0
        while not streaming.done():
            before = random.random() < 0.5
            postgres_proxy.cut_on(random.choice([b"COMMIT", b"UPDATE", b"INSERT", b"BEGIN"]), before=before)
            await asyncio.sleep(random.uniform(0.05, 0.6))
            if random.random() < 0.3:
                postgres_proxy.cut()
            cuts += 1
        await streaming
        postgres_proxy.restore()
        FIGURES.add("transactions cut", cuts)
        assert all(client.is_open for client in clients), "a stream was ended by its storage"
        expected = await finish_all(clients)
        await scenario.settled(60)
        await scenario.compare(expected, statuses=("completed",))
        await scenario.until_nothing_is_left(spool)
