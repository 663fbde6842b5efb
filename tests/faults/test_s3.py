"""P4: streams continue whatever S3 does, nothing is lost, and the backlog ships when S3 is back."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy, always, every_third
from tests.faults.load import finish_all, stream_all, streams
from tests.faults.scenario import Expected, Scenario
from tests.faults.servers import a_server

STREAMS = 10
RULES = {
    "refusing": always(Fate.REFUSE),
    "hanging": always(Fate.HANG),
    "hanging after the work": always(Fate.HANG_AFTER),
    "500 to every third": every_third(Fate.FAIL),
    "500 to every third after the work": every_third(Fate.FAIL_AFTER),
    "200 lost to every third": every_third(Fate.LOSE),
    "200 lost": always(Fate.LOSE),
}
SHORT = "refusing"
"""What `make test` runs, too."""
FAULTS = [pytest.param(name, marks=() if name == SHORT else pytest.mark.long) for name in RULES]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS)
async def test_streams_go_on_and_nothing_is_lost(
    scenario: Scenario, s3_http: HttpProxy, full: bool, fault: str
) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool, s3_port=s3_http.port, store_wait_seconds=2)
    async with (
        a_server(environment, scenario.folder / "server.log") as server,
        streams(server, STREAMS) as clients,
        streams(server, 4, first_tag=20) as short,
    ):
        await stream_all([*clients, *short], 3)
        s3_http.rule = RULES[fault]
        began = asyncio.get_running_loop().time()
        await asyncio.gather(stream_all(clients, 60 if full else 8), _ended_meanwhile(short))
        assert all(client.is_open for client in clients), "a stream was ended by its storage"
        FIGURES.add("seconds of S3 faults", round(asyncio.get_running_loop().time() - began))
        FIGURES.add("S3 requests that met a fault", s3_http.faults.total())
        s3_http.restore()
        expected = await finish_all(clients) + [Expected.of(client) for client in short]
        await scenario.settled(90)
        await scenario.compare(expected, statuses=("completed",))
        await scenario.until_nothing_is_left(spool)


async def _ended_meanwhile(clients: list) -> None:  # type: ignore[type-arg]
    """`session_end` comes in time although nothing can be stored."""
    await stream_all(clients, 2)
    await finish_all(clients, 20)
    assert all(client.end is not None and client.reason == "OK" for client in clients)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_killed_while_s3_is_away_and_started_again(scenario: Scenario, s3_http: HttpProxy) -> None:
    """P2 and P4 together: audio that is only in the spool survives the process."""
    spool = scenario.new_spool()
    environment = scenario.environment(spool, s3_port=s3_http.port)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, STREAMS) as clients:
        s3_http.rule = always(Fate.REFUSE)
        await stream_all(clients, 4)
        await server.kill()
        await asyncio.gather(*(client.closed() for client in clients))
        FIGURES.add("kills survived")
        expected = [Expected.of(client) for client in clients]
    s3_http.restore()
    async with a_server(environment, scenario.folder / "server.log"):
        await scenario.settled()
        await scenario.compare(expected)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_client_is_warned_while_its_session_is_not_stored(scenario: Scenario, s3_http: HttpProxy) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool, s3_port=s3_http.port)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, 2) as clients:
        s3_http.rule = always(Fate.HANG)
        async with asyncio.timeout(40):
            while not all(client.warnings for client in clients):
                await stream_all(clients, 0.5)
        assert {warning.code for client in clients for warning in client.warnings} == {"persistence_degraded"}
        s3_http.restore()
        async with asyncio.timeout(40):
            while not all(len(client.warnings) > 1 for client in clients):
                await stream_all(clients, 0.5)
        expected = await finish_all(clients)
        await scenario.settled()
        await scenario.compare(expected, statuses=("completed",))
