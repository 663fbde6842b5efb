"""P1: clients disconnect in every possible way; what was received of them is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.faults.client import PatternClient
from tests.faults.fault_server import CYCLE_BYTES
from tests.faults.figures import FIGURES
from tests.faults.proxy import Proxy
from tests.faults.scenario import Expected, Scenario
from tests.faults.servers import ServerProcess, a_server

WAYS: dict[str, Callable[[Proxy], None]] = {
    "reset": lambda proxy: proxy.cut(),
    "cable pulled": lambda proxy: proxy.stall(),
    "nothing arrives": lambda proxy: proxy.swallow(proxy.to_server),
    "nothing comes back": lambda proxy: proxy.stall(proxy.to_client),
}
# Keepalive: 5 s and 3 s more. Recognition of what is left, the row and the objects follow.
_NOTICED_SECONDS = 25
_WHOLE_UTTERANCES = 5


async def spoken(server: ServerProcess, port: int, tag: int) -> PatternClient:
    """Opens a stream and sends until the middle of an utterance; all of it has been received."""
    client = PatternClient(server.channel(port), tag=tag)
    await client.begin()
    await client.send(_WHOLE_UTTERANCES * CYCLE_BYTES)
    await client.flush()
    await client.send(16_000)
    return client


@pytest.mark.timeout(120)
async def test_a_vanished_client_is_noticed_and_kept(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        clients: list[PatternClient] = []
        try:
            async with asyncio.TaskGroup() as group:
                for tag, vanish in enumerate(WAYS.values(), start=1):
                    group.create_task(_vanish(server, clients, tag, vanish))
            cancelled = await spoken(server, server.port, 30)
            clients.append(cancelled)
            await asyncio.sleep(0.5)
            cancelled.vanish()
            expected = [Expected.of(client) for client in clients]
            await scenario.settled(_NOTICED_SECONDS)
            FIGURES.add("clients that vanished", len(clients))
            await scenario.compare(expected)
            for client in clients:
                await _last_words(scenario, client)
            await scenario.until_nothing_is_left(spool)
        finally:
            for client in clients:
                await client.close()


async def _vanish(
    server: ServerProcess, clients: list[PatternClient], tag: int, vanish: Callable[[Proxy], None]
) -> None:
    async with Proxy("127.0.0.1", server.port) as proxy:
        client = await spoken(server, proxy.port, tag)
        clients.append(client)
        await asyncio.sleep(0.5)  # the last half second arrives
        vanish(proxy)
        await asyncio.sleep(12)


async def _last_words(scenario: Scenario, client: PatternClient) -> None:
    """The utterance in progress, half a second after the flush, was transcribed, although no client was connected."""
    row = await scenario.row(client.session_id)
    assert row["status"] == "interrupted"
    assert row["utterance_count"] > _WHOLE_UTTERANCES, "speech in progress was not transcribed"
    assert row["audio_duration_seconds"] == client.sent / 32_000


@pytest.mark.timeout(60)
async def test_a_client_that_half_closes_has_ended_well(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        client = await spoken(server, server.port, 1)
        await client.call.done_writing()
        await client.closed()
        assert client.end is not None
        assert client.end.audio_uri
        expected = Expected.of(client)
        await client.close()
        await scenario.settled()
        await scenario.compare([expected], statuses=("completed",))
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_an_idle_client_is_ended_and_kept(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool, idle_timeout_seconds=2), scenario.folder / "server.log") as server:
        client = await spoken(server, server.port, 1)
        await client.closed(20)
        assert client.reason == "DEADLINE_EXCEEDED"
        expected = Expected.of(client)
        await client.close()
        await scenario.settled()
        await scenario.compare([expected])
        await scenario.until_nothing_is_left(spool)
