"""P7: a server that is paused past its lease is fenced when it wakes."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.spool.session_spool import SessionSpool
from tests.faults.figures import FIGURES
from tests.faults.load import STREAMS, finish_all, stream_all, streams
from tests.faults.scenario import FLUSH_SECONDS, LEASE_SECONDS, Expected, Scenario
from tests.faults.servers import a_server


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("shares_spool", [False, True])
async def test_a_paused_server_is_fenced(scenario: Scenario, shares_spool: bool) -> None:
    """Another server owns its sessions by then: it changes none, and its clients are asked to resume.

    When it starts again it adds what it had received and nobody else had: not a byte and not a final is lost.
    """
    mine = scenario.new_spool()
    other = mine if shares_spool else scenario.new_spool()
    async with (
        a_server(scenario.environment(other), scenario.folder / "other.log"),
        a_server(scenario.environment(mine), scenario.folder / "server.log") as server,
        streams(server) as clients,
    ):
        await stream_all(clients, 6)
        expected = [Expected.of(client) for client in clients]
        server.send(signal.SIGSTOP)
        FIGURES.add("servers paused past their lease")
        streaming = asyncio.create_task(stream_all(clients, LEASE_SECONDS * 2 + 10))
        await scenario.settled(LEASE_SECONDS * 2 + 30)
        before = {each.session_id: await _what_counts(scenario, each.session_id) for each in expected}
        audio = {each.session_id: await scenario.object(f"sessions/{each.session_id}/audio.wav") for each in expected}
        server.send(signal.SIGCONT)
        await asyncio.gather(*(client.closed(30) for client in clients))
        await streaming
        assert [client.reason for client in clients] == ["UNAVAILABLE"] * STREAMS
        await asyncio.sleep(5)
        for each in expected:
            assert await _what_counts(scenario, each.session_id) == before[each.session_id]
            assert await scenario.object(f"sessions/{each.session_id}/audio.wav") == audio[each.session_id]
        # What its disk alone has is not there yet: sent is all there ever was.
        sent = [replace(each, sent=client.sent) for each, client in zip(expected, clients, strict=True)]
        await scenario.compare(sent, lost_seconds=FLUSH_SECONDS + 2)
        assert await server.exit(30) == 1
        spooled = {path.name: _spooled_bytes(path) for path in mine.glob("*/sess_*")}
        assert spooled, "it had more than S3"
        # Its supervisor starts it again, and what its spool has beyond S3 is added.
        async with (
            a_server(scenario.environment(mine), scenario.folder / "server.log") as again,
            streams(again, 3, first_tag=40) as later,
        ):
            await stream_all(later, 1)
            expected = await finish_all(later)
            await scenario.settled()
            await scenario.compare(expected, statuses=("completed",))
            await scenario.until_nothing_is_left(mine)
        await scenario.compare([Expected.of(client) for client in clients])
        for session_id, size in spooled.items():
            row = await scenario.row(session_id)
            assert row["stored_bytes"] >= size
            before_it = before.get(session_id)
            # It ended once, and a tenant may have read its end reason: only its stored audio has grown.
            assert before_it is None or [row["status"], row["error"], row["ended_at"]] == before_it[:3]


def _spooled_bytes(session: Path) -> int:
    """The length of the audio that a fenced server has in its spool, released segments included."""
    spool = SessionSpool.open(session)
    return 0 if spool is None else spool.audio_bytes()


async def _what_counts(scenario: Scenario, session_id: str) -> list[object]:
    """The columns of a row that cleaning up after the session does not change."""
    row = await scenario.row(session_id)
    return [row[name] for name in ("status", "error", "ended_at", "audio_uri", "audio_duration_seconds", "worker_id")]


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_short_pause_changes_nothing(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with (
        a_server(scenario.environment(scenario.new_spool()), scenario.folder / "other.log"),
        a_server(scenario.environment(spool), scenario.folder / "server.log") as server,
        streams(server, STREAMS) as clients,
    ):
        await stream_all(clients, 2)
        server.send(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS / 3)
        server.send(signal.SIGCONT)
        await stream_all(clients, 2)
        expected = await finish_all(clients)
        await scenario.settled()
        await scenario.compare(expected, statuses=("completed",))
        await scenario.until_nothing_is_left(spool)
