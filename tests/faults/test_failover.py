"""Postgres is lost, and a standby is promoted that may lack its last transactions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from persistence.migrate import migrate
from tests.faults.figures import FIGURES
from tests.faults.load import finish_all, stream_all, streams
from tests.faults.proxy import Proxy
from tests.faults.scenario import Bucket, Scenario, a_scenario
from tests.faults.servers import a_server
from tests.faults.standby import Pair

LAG_SECONDS = 3.0
"""What the standby has not had: sessions begin in it, finals are written, and sessions end and are stored."""


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with Proxy("127.0.0.1", 1) as clients, Proxy("127.0.0.1", 1) as link:
        pair = Pair(tmp_path / "pair", clients, link)
        try:
            await asyncio.to_thread(migrate, pair.start().url)
            yield pair
        finally:
            pair.close()


@pytest.fixture
async def paired_scenario(pair: Pair, s3: Any, tmp_path: Path) -> AsyncIterator[Scenario]:
    bucket = Bucket(s3.endpoint_url, s3.access_key_id, s3.secret_access_key, f"faults-{uuid.uuid4().hex[:8]}")
    async with a_scenario(pair.primary.url, bucket, tmp_path) as scenario:
        scenario.database_url = scenario.database_url.replace(f":{pair.primary.port}/", f":{pair.port}/")
        yield scenario


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "synchronous",
    [pytest.param(False, id="asynchronous"), pytest.param(True, id="synchronous", marks=pytest.mark.long)],
)
async def test_a_failover_costs_no_recording_and_no_final(
    paired_scenario: Scenario, pair: Pair, *, synchronous: bool
) -> None:
    scenario, spool = paired_scenario, paired_scenario.new_spool()
    await pair.add_standby(synchronous=synchronous)
    async with (
        a_server(scenario.environment(spool), scenario.folder / "server.log") as server,
        streams(server, 6) as before,
    ):
        await stream_all(before, 2)
        if not synchronous:
            pair.stall()
        async with streams(server, 6, first_tag=20) as within:
            await stream_all([*before, *within], LAG_SECONDS)
            # Their clients receive that all is stored, and the spool that has it on this machine is deleted.
            ended = await finish_all([before.pop(), before.pop(0), within.pop(), within.pop(0)])
            streaming = asyncio.create_task(stream_all([*before, *within], 6))
            await pair.fail_over()
            FIGURES.add("failovers of Postgres")
            await streaming
            assert all(client.is_open for client in (*before, *within)), "a stream was ended by its storage"
            async with streams(server, 2, first_tag=40) as later:
                await stream_all(later, 1)
                expected = await finish_all([*before, *within, *later]) + ended
        lost = sessions_restored(server.log_text())
        await scenario.settled(60)
        await scenario.compare(expected, statuses=("completed",))
        await scenario.until_nothing_is_left(spool)
    FIGURES.add("rows of sessions that a failover had lost", lost)
    assert (lost > 0) is not synchronous


def sessions_restored(log: str) -> int:
    return sum("the database had lost rows" in line and "realtime_sessions" in line for line in log.splitlines())
