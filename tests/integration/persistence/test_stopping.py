"""How the server process exits when it cannot serve any more: it is considered dead, or its engine has died."""

from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.faults.client import PatternClient
from tests.faults.servers import a_server
from tests.integration.persistence.conftest import environment_of

CALM = {"lease_renewal_seconds": 0.3, "flush_seconds": 60.0}
NEVER = {"reap_seconds": 60.0}
TAKE = """
    UPDATE realtime_sessions SET worker_id = 'another', status = 'interrupted', ended_at = now(),
        recover_after = now() + interval '1 h'
    WHERE worker_id = :id
"""


async def test_a_server_without_its_lease_exits_and_the_next_stores_everything(
    harness: Any, make_settings: Any, tmp_path: Path
) -> None:
    settings = make_settings(**CALM, **NEVER)
    async with a_server(environment_of(settings), tmp_path / "server.log") as server:
        client = PatternClient(server.channel(), tag=1, speed=4.0)
        session_id = await client.begin()
        await client.stream(2)
        async with harness.database.transaction() as connection:
            # As a reaper does that takes it for dead.
            await connection.execute(text("DELETE FROM workers WHERE id = :id"), {"id": settings.worker_id})
            await connection.execute(text(TAKE), {"id": settings.worker_id})
        await client.closed(10)
        assert client.reason == "UNAVAILABLE"
        assert await server.exit(10) == 1
        await client.close()
        assert client.received > 32_000
    async with a_server(environment_of(make_settings(**CALM)), tmp_path / "server.log"):
        record = await harness.ended(session_id)
        assert record.status == "interrupted"
        audio = await harness.read_audio(session_id)
    assert len(audio) >= client.received


async def test_a_server_with_a_dead_engine_ends_its_streams_and_exits(
    harness: Any, make_settings: Any, tmp_path: Path
) -> None:
    environment, log = environment_of(make_settings(**CALM)), tmp_path / "server.log"
    async with a_server(environment, log, program="tests.faults.dying_server") as server:
        quiet, client = PatternClient(server.channel(), tag=1), PatternClient(server.channel(), tag=2, speed=4.0)
        await quiet.begin()
        session_id = await client.begin()
        await client.stream(2)
        for each in (quiet, client):
            await each.closed(10)
            assert each.reason == "UNAVAILABLE"
        assert await server.exit(10) == 1
        assert "the model's thread has died" in server.log_text()
        for each in (quiet, client):
            await each.close()
    record = await harness.ended(session_id)
    assert record.status == "interrupted"
    assert len(await harness.read_audio(session_id)) >= client.received
    assert (await harness.transcript(session_id))["text"] == " ".join(client.finals)
