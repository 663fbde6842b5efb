"""Verify finds every kind of damage, and has no findings without damage."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from domain.errors import StorageUnavailable
from domain.session_id import new_session_id, parse_session_id
from persistence.errors import LeaseLost
from persistence.postgres.lease import Lease
from persistence.recovery.checks import Verifier
from persistence.recovery.finding import Finding
from persistence.recovery.repair import Repairer
from persistence.s3.keys import Tail, audio_key, tail_key, transcript_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from persistence.spool.session_spool import SessionSpool
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.waveforms import WaveformStore
from persistence.verify import Result, verify
from persistence.wav import WavFormat
from tests.integration.persistence.conftest import environment_of
from tests.integration.persistence.test_sessions import a_start

pytestmark = pytest.mark.usefixtures("empty_store")

BOTH = {"store_audio": True, "store_transcript": True}
WAV = WavFormat("pcm_s16le", 16000, 1)

SHORT_LEASE = {"lease_seconds": 3.0, "lease_renewal_seconds": 0.5}
"""A repair waits as long as its own lease lasts before it takes a session that has no server."""


async def recorded(harness: Any, client_of: Any) -> str:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*[os.urandom(3200) for _ in range(5)])
        await client.end()
        await client.rest()
    await harness.ended(session_id)
    await harness.no_spool()
    return str(session_id)


def kinds(result: Result, session_id: str) -> list[str]:
    identifier = parse_session_id(session_id)
    return sorted({each.kind for each in (*result.remaining, *result.repaired) if each.session_id == identifier})


async def execute(harness: Any, statement: str, session_id: str) -> None:
    async with harness.database.transaction() as connection:
        await connection.exec_driver_sql(statement, (parse_session_id(session_id),))


async def test_a_complete_session_has_no_findings(harness: Any, client_of: Any) -> None:
    session_id = await recorded(harness, client_of)
    async with harness.channel() as channel:
        running = client_of(channel)
        await running.begin(**BOTH)
        await running.send(os.urandom(3200))
        result = await verify(harness.settings)
        assert kinds(result, session_id) == kinds(result, running.session_id) == []
        assert min(result.checked["rows"], result.checked["objects"]) > 0
        await running.end()
        await running.rest()


async def lose_audio(harness: Any, session_id: str) -> None:
    await harness.objects.delete(audio_key(parse_session_id(session_id)))


async def damage_audio(harness: Any, session_id: str) -> None:
    await harness.objects.put(audio_key(parse_session_id(session_id)), WAV.header(100) + bytes(98), "audio/wav")


async def shorten_audio(harness: Any, session_id: str) -> None:
    await harness.objects.put(audio_key(parse_session_id(session_id)), WAV.header(100) + bytes(100), "audio/wav")


async def lose_transcript(harness: Any, session_id: str) -> None:
    await harness.objects.delete(transcript_key(parse_session_id(session_id)))


async def damage_transcript(harness: Any, session_id: str) -> None:
    await harness.objects.put(transcript_key(parse_session_id(session_id)), b"{", "application/json")


async def lose_an_utterance(harness: Any, session_id: str) -> None:
    await harness.objects.put(transcript_key(parse_session_id(session_id)), b'{"utterances": []}', "application/json")


async def miscount(harness: Any, session_id: str) -> None:
    await execute(harness, "UPDATE realtime_sessions SET utterance_count = 77 WHERE id = $1", session_id)


async def lose_the_row(harness: Any, session_id: str) -> None:
    await execute(harness, "DELETE FROM realtime_sessions WHERE id = $1", session_id)


async def delete_but_for_the_objects(harness: Any, session_id: str) -> None:
    await execute(harness, "UPDATE realtime_sessions SET deleted_at = now() WHERE id = $1", session_id)
    await lose_the_row(harness, session_id)


async def leave_a_tail(harness: Any, session_id: str) -> None:
    await harness.objects.put(
        tail_key(parse_session_id(session_id), Tail(0, 10)), bytes(10), "application/octet-stream"
    )


async def leave_an_upload(harness: Any, session_id: str) -> None:
    await harness.objects.create_upload(audio_key(parse_session_id(session_id)), "audio/wav")


async def leave_an_old_waveform(harness: Any, session_id: str) -> None:
    await WaveformStore(harness.objects).write(parse_session_id(session_id), b"other audio", bytes(26))


async def leave_a_delete(harness: Any, session_id: str) -> None:
    await execute(harness, "UPDATE realtime_sessions SET deleted_at = now() - interval '1 h' WHERE id = $1", session_id)


async def leave_it_active(harness: Any, session_id: str) -> None:
    statement = """UPDATE realtime_sessions SET status = 'active', ended_at = NULL, audio_uri = NULL,
        transcript_uri = NULL, worker_id = 'nobody' WHERE id = $1"""
    await execute(harness, statement, session_id)


async def leave_it_in_the_spool(harness: Any, session_id: str) -> None:
    row = await harness.row_of(session_id)
    start = a_start(row["tenant_id"], id=row["id"])
    (harness.spool_dir / "gone").mkdir(exist_ok=True)
    SessionSpool.create(harness.spool_dir / "gone", start).close()


async def leave_more_in_the_spool(harness: Any, session_id: str) -> None:
    row = await harness.row_of(session_id)
    (harness.spool_dir / "gone").mkdir(exist_ok=True)
    spool = SessionSpool.create(harness.spool_dir / "gone", a_start(row["tenant_id"], id=row["id"]))
    spool.append_audio(bytes(20_000))
    spool.close()


@pytest.mark.parametrize(
    ("damage", "kind", "is_repaired"),
    [
        (lose_audio, "audio_missing", False),
        (damage_audio, "audio_damaged", False),
        (shorten_audio, "audio_length", True),
        (lose_transcript, "transcript_missing", True),
        (damage_transcript, "transcript_damaged", True),
        (lose_an_utterance, "transcript_differs", True),
        (miscount, "utterance_count", True),
        (lose_the_row, "object_without_row", False),
        (delete_but_for_the_objects, "deleted_left", True),
        (leave_a_tail, "tail_left", True),
        (leave_an_upload, "upload_left", True),
        (leave_an_old_waveform, "waveform_stale", True),
        (leave_a_delete, "delete_unfinished", True),
        (leave_it_active, "no_server", True),
        (leave_it_in_the_spool, "spool_left", True),
        (leave_more_in_the_spool, "spool_has_more", True),
    ],
)
async def test_every_kind_of_damage_is_found_and_repaired_where_safe(
    build_harness: Any, client_of: Any, damage: Callable[[Any, str], Awaitable[None]], kind: str, is_repaired: bool
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        session_id = await recorded(harness, client_of)
        await damage(harness, session_id)
        settings = harness.settings.model_copy(update={"orphan_age_seconds": 0.0, **SHORT_LEASE})
        assert kinds(await verify(settings), session_id) == [kind]
        await verify(settings, repair=True)
        again = await verify(settings)
        assert kinds(again, session_id) == ([] if is_repaired else [kind])
        if kind == "no_server":
            record = await harness.record(session_id)
            assert record.status == "interrupted"
        await clean(harness, session_id)


async def clean(harness: Any, session_id: str) -> None:
    await lose_audio(harness, session_id)
    await lose_transcript(harness, session_id)
    await lose_the_row(harness, session_id)


async def test_the_waveform_of_the_audio_is_no_finding(harness: Any, client_of: Any) -> None:
    session_id = await recorded(harness, client_of)
    waveforms = harness.persistence.waveforms
    audio = await waveforms.recorded(await harness.chain(session_id))
    await waveforms.write(parse_session_id(session_id), audio.identity, bytes(26))
    assert kinds(await verify(harness.settings), session_id) == []


async def test_a_waveform_of_a_session_without_audio_is_found_and_deleted(build_harness: Any, client_of: Any) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        async with harness.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(store_transcript=True)
            await client.end()
            await client.rest()
        await harness.ended(session_id)
        await leave_an_old_waveform(harness, session_id)
        settings = harness.settings.model_copy(update=SHORT_LEASE)
        assert kinds(await verify(settings), session_id) == ["waveform_stale"]
        await verify(settings, repair=True)
        assert kinds(await verify(settings), session_id) == []


async def test_the_command_prints_what_disagrees_and_exits_1(harness: Any, client_of: Any) -> None:
    session_id = await recorded(harness, client_of)
    await lose_audio(harness, session_id)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "persistence.verify",
        env=environment_of(harness.settings),
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    lines = [line for line in output.decode().splitlines() if session_id in line]
    assert process.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith("audio_missing")
    await clean(harness, session_id)


async def leases(harness: Any) -> list[float]:
    """The remaining seconds of the leases of `verify`."""
    query = text("SELECT extract(epoch FROM lease_expires_at - now())::float8 FROM workers WHERE id LIKE 'verify-%'")
    async with harness.database.transaction() as connection:
        return list((await connection.execute(query)).scalars())


async def test_a_repair_holds_a_short_lease_renews_it_and_releases_it(
    build_harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        session_id = await recorded(harness, client_of)
        await miscount(harness, session_id)
        held = []
        repair = Repairer.repair

        async def slowly(self: Repairer, finding: Finding) -> bool:
            for _ in range(5):
                await asyncio.sleep(1.0)
                held.extend(await leases(harness))
            return await repair(self, finding)

        monkeypatch.setattr(Repairer, "repair", slowly)
        settings = harness.settings.model_copy(update=SHORT_LEASE)
        assert kinds(await verify(settings, repair=True), session_id) == ["utterance_count"]
        assert len(held) >= 5
        assert 0.0 < min(held) <= max(held) <= 3.0
        assert await leases(harness) == []
        assert (await harness.record(session_id)).utterance_count == 3
        await clean(harness, session_id)


async def test_a_failed_repair_releases_its_lease_and_a_check_takes_none(
    harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await recorded(harness, client_of)
    await miscount(harness, session_id)
    held = []

    async def failing(self: Repairer, finding: Finding) -> bool:
        held.extend(await leases(harness))
        raise StorageUnavailable("no more")

    monkeypatch.setattr(Repairer, "repair", failing)
    with pytest.raises(StorageUnavailable, match="no more"):
        await verify(harness.settings, repair=True)
    assert len(held) == 1
    assert await leases(harness) == []
    of_row = Verifier._of_row

    async def looking(self: Verifier, row: Any) -> list[Finding]:
        held.extend(await leases(harness))
        return await of_row(self, row)

    monkeypatch.setattr(Verifier, "_of_row", looking)
    await verify(harness.settings)
    assert len(held) == 1
    await clean(harness, session_id)


async def test_a_repair_that_was_taken_for_dead_writes_nothing_more(
    harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await recorded(harness, client_of)
    await lose_transcript(harness, session_id)
    repair = Repairer.repair

    async def late(self: Repairer, finding: Finding) -> bool:
        async with harness.database.transaction() as connection:
            await connection.exec_driver_sql("DELETE FROM workers WHERE id LIKE 'verify-%'")
        await self._lease.renew()
        return await repair(self, finding)

    monkeypatch.setattr(Repairer, "repair", late)
    with pytest.raises(LeaseLost):
        await verify(harness.settings, repair=True)
    assert kinds(await verify(harness.settings), session_id) == ["transcript_missing"]
    await clean(harness, session_id)


async def test_a_repair_waits_for_servers_that_renew_their_leases_after_an_outage(
    build_harness: Any, client_of: Any
) -> None:
    async with build_harness(reap_seconds=1000.0, lease_renewal_seconds=3.0) as harness, harness.channel() as channel:
        running = client_of(channel)
        await running.begin(**BOTH)
        async with harness.database.transaction() as connection:
            names = (harness.settings.worker_id,)
            await connection.exec_driver_sql("UPDATE workers SET lease_expires_at = now() WHERE id = $1", names)
        result = await verify(harness.settings, repair=True)
        assert kinds(result, running.session_id) == []
        assert (await harness.record(running.session_id)).status == "active"
        await running.send(os.urandom(3200))
        await running.end()
        assert (await running.rest())[-1].session_end.audio_uri


async def test_a_length_is_not_corrected_after_a_server_has_stored_more(
    harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await recorded(harness, client_of)
    await shorten_audio(harness, session_id)
    read = ObjectStore.read_start
    more = "UPDATE realtime_sessions SET stored_bytes = 32000, audio_duration_seconds = 1.0 WHERE id = $1"

    async def overtaken(self: ObjectStore, key: str, size: int) -> bytes:
        header = await read(self, key, size)
        await execute(harness, more, session_id)
        return header

    found = Finding("audio_length", parse_session_id(session_id), "is shorter", audio_key(parse_session_id(session_id)))
    lease = Lease(harness.database, "verify-test", 60.0, 5.0)
    await lease.register()
    repairer = Repairer(harness.database, harness.objects, lease, "verify-test", orphan_age_seconds=0.0)
    monkeypatch.setattr(ObjectStore, "read_start", overtaken)
    assert not await repairer.repair(found)
    assert (await harness.row_of(session_id))["stored_bytes"] == 32_000
    monkeypatch.setattr(ObjectStore, "read_start", read)
    assert await repairer.repair(found)
    assert (await harness.row_of(session_id))["stored_bytes"] == 100
    await lease.end(has_left_work=False)
    await clean(harness, session_id)


async def test_a_repair_leaves_a_session_that_a_server_has_taken(
    build_harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        taken, other = await recorded(harness, client_of), await recorded(harness, client_of)
        for session_id in (taken, other):
            await leave_it_active(harness, session_id)
        end = RemoteRecovery.end

        async def overtaken(self: RemoteRecovery, session: StoredSession) -> None:
            if session.id == parse_session_id(taken):
                statement = "UPDATE realtime_sessions SET worker_id = $2 WHERE id = $1"
                async with harness.database.transaction() as connection:
                    await connection.exec_driver_sql(statement, (session.id, harness.settings.worker_id))
            await end(self, session)

        monkeypatch.setattr(RemoteRecovery, "end", overtaken)
        result = await verify(harness.settings.model_copy(update=SHORT_LEASE), repair=True)
        assert (result.ended, kinds(result, taken), kinds(result, other)) == (1, [], [])
        assert (await harness.row_of(taken))["worker_id"] == harness.settings.worker_id
        for session_id in (taken, other):
            await clean(harness, session_id)


def test_an_id_of_no_session_is_no_trouble() -> None:
    assert kinds(Result((), (), 0, {}), new_session_id()) == []
