"""P6: a deploy. SIGTERM under live streams, and a second one."""

from __future__ import annotations

import asyncio
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy, always
from tests.faults.load import STREAMS, finish_all, stream_all, streams
from tests.faults.proxy import Proxy
from tests.faults.scenario import Expected, Scenario
from tests.faults.servers import ServerProcess, a_server

GRACE = 8
STOP_SECONDS = 20
"""docs/durability.md: the process is gone so long after the grace period, whatever hangs."""


async def notified(clients: list[PatternClient], seconds: float = 5) -> None:
    """Waits until every client has received that the server will stop."""
    async with asyncio.timeout(seconds):
        while not all(client.terminating for client in clients):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def serves(server: ServerProcess) -> bool:
    async with server.channel() as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.timeout(120)
async def test_a_deploy_stores_everything_inside_the_grace_period(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool, shutdown_seconds=GRACE)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        await stream_all(clients, 4)
        server.send(signal.SIGTERM)
        FIGURES.add("deploys under live streams")
        streaming = asyncio.create_task(stream_all(clients, GRACE + 5))
        await notified(clients)
        assert all(client.terminating and client.terminating.resume_session_id for client in clients)
        assert not await serves(server)
        latecomer = PatternClient(server.channel(), tag=60)
        with pytest.raises(grpc.aio.AioRpcError):
            await latecomer.begin()
        await latecomer.close()
        # Some end well in the time they were given, the others are cut off.
        well = await finish_all(clients[: STREAMS // 2])
        assert [client.reason for client in clients[: STREAMS // 2]] == ["OK"] * (STREAMS // 2)
        await asyncio.gather(*(client.closed(GRACE + 20) for client in clients))
        await streaming
        assert await server.exit(GRACE + 30) == 0
        cut_off = [Expected.of(client) for client in clients[STREAMS // 2 :]]
        assert [client.reason for client in clients[STREAMS // 2 :]] == ["UNAVAILABLE"] * (STREAMS // 2)
    # Nobody has started again: all is where it belongs already.
    await scenario.compare(well, statuses=("completed",))
    await scenario.compare(cut_off, statuses=("interrupted",))
    await scenario.nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_second_sigterm_exits_at_once_and_loses_nothing(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool, shutdown_seconds=60)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        await stream_all(clients, 3)
        server.send(signal.SIGTERM)
        await notified(clients)
        await stream_all(clients, 1)
        server.send(signal.SIGTERM)
        await server.exit(5)
        await asyncio.gather(*(client.closed() for client in clients))
        expected = [Expected.of(client) for client in clients]
    async with a_server(environment, scenario.folder / "server.log"):
        await scenario.settled()
        await scenario.compare(expected)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("hanging", ["S3", pytest.param("S3 and Postgres", marks=pytest.mark.long)])
async def test_a_hanging_server_exits_in_time_and_the_next_stores_everything(
    scenario: Scenario, s3_http: HttpProxy, postgres_proxy: Proxy, hanging: str
) -> None:
    """The deadlines of single calls are long: the deadline for stopping must end them."""
    spool, grace = scenario.new_spool(), 3
    deadlines = {"s3_deadline_seconds": 30, "database_deadline_seconds": 30, "shutdown_seconds": grace}
    through = {"s3_port": s3_http.port, "postgres_port": postgres_proxy.port}
    environment = scenario.environment(spool, **through, **deadlines)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        await stream_all(clients, 3)
        s3_http.rule = always(Fate.HANG)
        if hanging != "S3":
            postgres_proxy.stall()
        await stream_all(clients, 1)
        began = asyncio.get_running_loop().time()
        server.send(signal.SIGTERM)
        await notified(clients)
        vanishing, staying = clients[:3], clients[3:]
        for client in vanishing:
            client.call.cancel()
        await asyncio.gather(*(client.closed(grace + STOP_SECONDS + 2) for client in staying))
        assert await server.exit(grace + STOP_SECONDS + 1 - (asyncio.get_running_loop().time() - began)) == 0
        FIGURES.add("servers stopped while storage hung")
        assert "sessions are left in the spool" in server.log_text()
        assert ("shutdown takes too long" in server.log_text()) <= (hanging != "S3"), "all steps kept their deadlines"
        expected = [Expected.of(client) for client in clients]
    s3_http.restore()
    postgres_proxy.restore()
    async with a_server(environment, scenario.folder / "server.log"):
        await scenario.settled()
        await scenario.compare(expected)
        await scenario.until_nothing_is_left(spool)
