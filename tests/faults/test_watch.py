"""A watch of sessions misses nothing, whatever part of the service fails meanwhile."""

from __future__ import annotations

import asyncio
import signal

import grpc
import pytest

from tests.faults.load import finish_all, stream_all, streams
from tests.faults.own_postgres import OwnPostgres
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario
from tests.faults.servers import a_server
from tests.faults.watcher import Watcher


@pytest.mark.timeout(180)
async def test_a_watch_continues_after_an_outage_and_has_missed_nothing(
    own_scenario: Scenario, own_postgres: OwnPostgres
) -> None:
    scenario, spool = own_scenario, own_scenario.new_spool()
    environment = scenario.environment(spool, lease_seconds=60)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, 4) as clients:
        watcher = Watcher(server.channel())
        await stream_all(clients, 2)
        await watcher.until(lambda view: len(view.known) == 4)
        await own_postgres.stop(signal.SIGINT)
        before = len(watcher.messages)
        await stream_all(clients, 17)
        await watcher.until(lambda view: view.kinds[-1] == "heartbeat")
        assert set(watcher.kinds[before:]) <= {"heartbeat", "changed"}
        own_postgres.start()
        expected = await finish_all(clients)
        await scenario.settled(60)
        names = {each.session_id for each in expected}
        await watcher.until(lambda view: view.statuses == dict.fromkeys(names, "completed"), 40)
        stored = {each.session_id for each in expected if each.store_audio}
        await watcher.until(lambda view: {name for name, each in view.known.items() if each.audio_uri} == stored)
        assert watcher.error is None
        await watcher.close()


@pytest.mark.timeout(120)
async def test_a_stopping_server_ends_its_watches_and_the_next_continues_them(scenario: Scenario) -> None:
    log = scenario.folder / "server.log"
    async with a_server(scenario.environment(scenario.new_spool()), log) as server:
        async with streams(server, 2) as clients:
            await stream_all(clients, 1)
            watcher = Watcher(server.channel())
            await watcher.until(lambda view: view.kinds.count("snapshot") == 2 and "ready" in view.kinds)
            server.send(signal.SIGTERM)
            error = await watcher.ended(10)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            last = watcher.messages[-1]
            assert (last.type, last.code) == ("error", "server_shutdown")
            assert "connect again" in last.message
            expected = await finish_all(clients)
        assert await server.exit(30) == 0
    async with a_server(scenario.environment(scenario.new_spool()), log) as server:
        again = Watcher(server.channel(), token=watcher.token)
        await again.until(lambda view: "ready" in view.kinds)
        assert "snapshot" not in again.kinds
        assert again.statuses == {each.session_id: "completed" for each in expected}
        await again.close()


@pytest.mark.timeout(120)
async def test_watches_of_a_tenant_are_limited_and_closing_frees_a_place(scenario: Scenario) -> None:
    environment = scenario.environment(scenario.new_spool(), tenant_max_watches=2)
    async with a_server(environment, scenario.folder / "server.log") as server:
        first, second = Watcher(server.channel()), Watcher(server.channel())
        for each in (first, second):
            await each.until(lambda view: "ready" in view.kinds)
        refused = await Watcher(server.channel()).ended()
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.close()
        async with asyncio.timeout(10):
            while True:
                third = Watcher(server.channel())
                await third.until(lambda view: bool(view.messages) or view.error is not None)
                if third.error is None:
                    break
        await third.close()
        await second.close()


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_watch_is_kept_alive_while_postgres_hangs(scenario: Scenario, postgres_proxy: Proxy) -> None:
    """Nothing is refused during the fault, and every call takes as long as its deadline."""
    environment = scenario.environment(
        scenario.new_spool(), postgres_port=postgres_proxy.port, lease_seconds=120, database_deadline_seconds=5
    )
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, 2) as clients:
        watchers = [Watcher(server.channel()) for _ in range(10)]
        await stream_all(clients, 1)
        for each in watchers:
            await each.until(lambda view: len(view.known) == 2)
        postgres_proxy.stall()
        await asyncio.sleep(45)
        postgres_proxy.restore()
        expected = await finish_all(clients, 60)
        for each in watchers:
            await each.until(lambda view: set(view.statuses.values()) == {"completed"}, 60)
            assert set(each.known) == {one.session_id for one in expected}
            assert each.longest_silence < 30
            assert each.error is None
            await each.close()
