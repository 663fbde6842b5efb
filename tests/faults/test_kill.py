"""P2 and P3: a server killed with -9 under live streams, with and without its disk."""

from __future__ import annotations

import random
import shutil

import pytest

from tests.faults.figures import FIGURES
from tests.faults.load import STREAMS, streams, until_killed
from tests.faults.scenario import FLUSH_SECONDS, LEASE_SECONDS, Expected, Scenario
from tests.faults.servers import a_server


@pytest.mark.timeout(1500)
async def test_killed_under_live_streams_and_started_again(scenario: Scenario, full: bool) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool)
    expected: list[Expected] = []
    for kill in range(50 if full else 1):
        async with a_server(environment, scenario.folder / "server.log") as server:
            FIGURES.add("server starts")
            async with streams(server, first_tag=1 + kill * STREAMS) as clients:
                expected += await until_killed(server, clients, random.uniform(0.2, 6.0))
    async with a_server(environment, scenario.folder / "server.log"):
        await scenario.settled()
        await scenario.compare(expected)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.timeout(600)
async def test_killed_with_its_disk_and_ended_by_another_server(scenario: Scenario, full: bool) -> None:
    for kill in range(8 if full else 1):
        lost, other = scenario.new_spool(), scenario.new_spool()
        async with a_server(scenario.environment(other), scenario.folder / "other.log"):
            async with (
                a_server(scenario.environment(lost), scenario.folder / "server.log") as server,
                streams(server, first_tag=1 + kill * STREAMS) as clients,
            ):
                expected = await until_killed(server, clients, random.uniform(1.0, 8.0))
            shutil.rmtree(lost)
            FIGURES.add("disks lost")
            await scenario.settled(LEASE_SECONDS * 2 + 30)
            # A turn of the writer, a flush, and the upload that was under way.
            await scenario.compare(expected, lost_seconds=FLUSH_SECONDS + 2)
            await scenario.until_nothing_is_left(other)
