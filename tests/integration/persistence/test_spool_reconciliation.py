"""A spool comes back after another server has ended its session: what only it has is added, once and whole."""

import asyncio
import signal
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from domain.tenancy import DEFAULT_TENANT_ID
from persistence.archive import delete_session
from persistence.postgres.database import Database
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.recovery.spool_recovery import conclusion_of
from persistence.s3.keys import Tail, audio_key, tail_key, tail_prefix
from persistence.s3.layout import part_of
from persistence.s3.objects import ObjectStore
from persistence.spool.spool_home import SpoolHome
from persistence.storing.audio_object import ExtendedAudio
from persistence.storing.spool_reconciliation import SpoolReconciliation, SpoolStatus
from persistence.verify import verify
from tests.integration.persistence.abandoned_spool import WAV, Left, a_final, abandoned_by_a_dead_server

pytestmark = pytest.mark.usefixtures("empty_store")

SHORT = (96_000, 64_000)
LONG = (12_800_000, 4_000_000)
"""Audio that S3 has and audio that only the spool has; the long one's second part is gone from the spool."""

Leave = Callable[..., Awaitable[Left]]


@pytest.fixture
def leave(make_settings: Any, database: Database, objects: ObjectStore) -> Leave:
    def leave(sizes: tuple[int, int] = SHORT, finals: tuple[int, int] = (2, 1)) -> Awaitable[Left]:
        return abandoned_by_a_dead_server(make_settings(), database, objects, sizes, finals)

    return leave


def reconciliation_of(left: Left, worker_id: str) -> SpoolReconciliation:
    rows = SessionRows(left.database, worker_id)
    return SpoolReconciliation(left.objects, rows, Ownership(left.database, worker_id))


async def settle(left: Left, reconciliation: SpoolReconciliation | None = None) -> SpoolStatus:
    reconciliation = reconciliation or reconciliation_of(left, f"next-{uuid.uuid4().hex[:8]}")
    return await reconciliation.settle(left.spool, conclusion_of(left.spool).progress)


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_a_start_on_the_spool_adds_what_only_it_has(
    leave: Leave, build_harness: Any, sizes: tuple[int, int]
) -> None:
    left = await leave(sizes)
    before = await left.ended()
    assert before.stored_bytes == sizes[0]
    assert before.utterance_count == 2
    segments = [path.name for path in left.spool.segments()]
    assert segments == (["audio.00001"] if sizes == SHORT else ["audio.00001", "audio.00003", "audio.00004"])
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        old = await harness.record(left.session_id)
        await harness.no_spool()
        await left.is_whole()
        new = await harness.record(left.session_id)
        # A tenant may have read when it ended, and how.
        assert (new.status, new.error, new.ended_at) == (old.status, old.error, old.ended_at)
        assert new.worker_id == harness.settings.worker_id
    assert list(left.settings.spool_dir.iterdir()) == []


async def test_finals_alone_are_added(leave: Leave, build_harness: Any) -> None:
    left = await leave((96_000, 0), (2, 1_200))
    await left.ended()
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        await left.is_whole()


async def test_finals_lost_from_the_spool_in_a_power_cut_are_transcribed(leave: Leave, build_harness: Any) -> None:
    left = await leave(SHORT, (3, 0))
    lines = left.spool.directory / "utterances.jsonl"
    lines.write_bytes(a_final(0).to_line() + a_final(1).to_line()[:20])
    # Figures are written before the finals of a long outage: the row may have counted more than anybody has.
    statement = "UPDATE realtime_sessions SET utterance_count = 9, word_count = 99 WHERE id = $1"
    async with left.database.transaction() as connection:
        await connection.exec_driver_sql(statement, (left.id,))
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        await left.is_whole()
        transcript = await harness.transcript(left.session_id)
        assert [each["text"] for each in transcript["utterances"]] == [a_final(number).text for number in range(3)]
        assert transcript["duration"] == WAV.seconds(len(left.audio))
        assert (await harness.record(left.session_id)).word_count == 12


async def test_a_spool_with_nothing_more_is_deleted_and_changes_nothing(leave: Leave) -> None:
    left = await leave((96_000, 0), (2, 0))
    before = await left.ended()
    assert await settle(left) is SpoolStatus.STORED
    assert await left.row() == before


@pytest.mark.parametrize("sizes", [SHORT, (96_000, 0)])
async def test_objects_that_a_paused_process_sent_late_are_deleted_with_its_spool(
    leave: Leave, sizes: tuple[int, int]
) -> None:
    left = await leave(sizes)
    await left.ended()
    await left.objects.put(tail_key(left.id, Tail(32_000, 4)), b"late", "application/octet-stream")
    await left.objects.create_upload(audio_key(left.id), "audio/wav")
    assert await settle(left) is SpoolStatus.STORED
    assert await left.objects.list(tail_prefix(left.id)) == []
    assert await left.objects.uploads(audio_key(left.id)) == []
    await left.is_whole()


async def test_a_deleted_session_stays_deleted_and_its_spool_is_deleted(leave: Leave, build_harness: Any) -> None:
    left = await leave()
    await left.ended()
    await delete_session(SessionStore(left.database), left.objects, DEFAULT_TENANT_ID, left.session_id)
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        assert await harness.row_of(left.session_id) is None
        assert not await harness.has_objects(left.session_id)


def stored_audio() -> tuple[float, float]:
    names = ("dalston_stored_audio_bytes_total", "dalston_stored_audio_seconds_total")
    bytes_, seconds = (REGISTRY.get_sample_value(name) or 0.0 for name in names)
    return bytes_, seconds


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_audio_counts_as_stored_once_also_when_a_restart_finishes_its_session(
    leave: Leave, build_harness: Any, sizes: tuple[int, int]
) -> None:
    before = stored_audio()
    left = await leave(sizes)
    assert stored_audio()[0] - before[0] == sizes[0]
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        await left.is_whole()
    after = stored_audio()
    assert after[0] - before[0] == len(left.audio)
    assert after[1] - before[1] == pytest.approx(WAV.seconds(len(left.audio)))


async def test_audio_of_an_unrecorded_object_is_not_counted_again(leave: Leave, build_harness: Any) -> None:
    left = await leave()
    await left.objects.put(audio_key(left.id), WAV.header(len(left.audio)) + left.audio, "audio/wav")
    before = stored_audio()
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        await left.is_whole()
    assert stored_audio() == before


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_a_delete_while_the_audio_is_put_leaves_nothing(
    leave: Leave, build_harness: Any, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int]
) -> None:
    left = await leave(sizes)
    await left.ended()
    real = ExtendedAudio.read

    async def read_and_delete(self: ExtendedAudio, begin: int, end: int) -> bytes:
        audio = await real(self, begin, end)
        if part_of(WAV, begin) == (1 if sizes == SHORT else 4):
            with suppress(Exception):
                await delete_session(SessionStore(left.database), left.objects, DEFAULT_TENANT_ID, left.session_id)
        return audio

    monkeypatch.setattr(ExtendedAudio, "read", read_and_delete)
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        assert await harness.row_of(left.session_id) is None
        assert not await harness.has_objects(left.session_id)
        assert await left.objects.uploads(audio_key(left.id)) == []


async def test_one_of_several_simultaneous_reclaims_succeeds(leave: Leave) -> None:
    left = await leave()
    before = await left.ended()
    heirs = [Ownership(left.database, f"heir-{number}") for number in range(6)]
    results = await asyncio.gather(*(heir.reclaim(left.id, before.worker_id) for heir in heirs))
    assert sorted(results) == [False] * 5 + [True]
    # Two whole claims at once end as one does.
    outcomes = await asyncio.gather(*(settle(left) for _ in range(2)), return_exceptions=True)
    assert SpoolStatus.STORED in outcomes or await settle(left) is SpoolStatus.STORED
    assert await settle(left) is SpoolStatus.STORED
    await left.is_whole()


async def test_a_session_that_runs_or_is_deleted_is_never_reclaimed(leave: Leave) -> None:
    left = await leave()
    heir = Ownership(left.database, "heir")
    owner = left.spool.manifest.start.worker_id
    assert not await heir.reclaim(left.id, owner)
    ended = await left.ended()
    await SessionStore(left.database).soft_delete(DEFAULT_TENANT_ID, left.session_id)
    assert not await heir.reclaim(left.id, ended.worker_id)
    assert not await heir.reclaim(left.id, owner)


STEPS = ["reclaim", "write", "upload_part", "complete_upload", "put", "abort_uploads", "set_stored"]


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("step", STEPS)
async def test_an_extension_interrupted_at_any_step_is_repeated_and_stays_readable(
    leave: Leave, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> None:
    left = await leave(LONG)
    await left.ended()
    before = await left.wav()
    reconciliation = reconciliation_of(left, "killed")
    rows, ownership, objects = reconciliation._rows, reconciliation._ownership, left.objects
    owner: Any = next(each for each in (ownership, rows, objects) if hasattr(each, step))
    real, calls = getattr(owner, step), 0

    class Killed(BaseException):
        pass

    async def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if step != "upload_part" or calls == 3:
            if is_done:
                await real(*arguments, **options)
            raise Killed
        return await real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dying)
        with pytest.raises(Killed):
            await settle(left, reconciliation)
    assert await left.wav() in (before, WAV.header(len(left.audio)) + left.audio)
    assert (await left.row()).is_stored
    assert await settle(left) is SpoolStatus.STORED
    await left.is_whole()


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.25])
async def test_a_server_killed_while_it_adds_is_followed_by_another(
    leave: Leave, build_harness: Any, a_killable_server: Any, seconds: float
) -> None:
    left = await leave(LONG)
    await left.ended()
    before = await left.wav()
    async with a_killable_server(left.settings) as (process, _):
        async with asyncio.timeout(20):
            while (await left.row()).worker_id == left.other:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await left.wav() in (before, WAV.header(len(left.audio)) + left.audio)
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.no_spool()
        await left.is_whole()


async def with_a_gap(left: Left) -> None:
    await left.objects.put(audio_key(left.id), WAV.header(6_000_000) + left.audio[:6_000_000], "audio/wav")


async def with_another_format(left: Left) -> None:
    directory = left.spool.directory
    start = replace(left.spool.manifest.start, encoding="mulaw")
    (directory / "session.json").write_bytes(replace(left.spool.manifest, start=start).to_json())


async def with_a_damaged_object(left: Left) -> None:
    await left.objects.put(audio_key(left.id), b"no recording" * 100, "audio/wav")


@pytest.mark.parametrize("damage", [with_a_gap, with_another_format, with_a_damaged_object])
async def test_audio_that_does_not_join_stays_spooled_and_verify_reports_it(
    leave: Leave, build_harness: Any, damage: Callable[[Left], Awaitable[None]]
) -> None:
    left = await leave(LONG)
    await left.ended()
    await damage(left)
    before, wav, known = await left.row(), await left.wav(), apart()
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.until(lambda: apart() == known + 1)
    assert left.is_spooled()
    assert (await left.row(), await left.wav()) == (before, wav)
    # The stack has left work behind, so a repair waits as long as its own lease lasts.
    soon = left.settings.model_copy(update={"lease_seconds": 2.0, "lease_renewal_seconds": 0.5})
    found = [each for each in (await verify(soon, repair=True)).left if each.session_id == left.id]
    assert "spool_has_more" in {each.kind for each in found}
    assert left.is_spooled()
    assert (await left.row()).worker_id == before.worker_id


def apart() -> float:
    return REGISTRY.get_sample_value("dalston_spools_apart_total") or 0.0


def waiting() -> float:
    return REGISTRY.get_sample_value("dalston_spools_waiting") or 0.0


async def test_a_session_that_another_server_is_ending_is_waited_for(leave: Leave, build_harness: Any) -> None:
    left = await leave()
    session = await left.taken()
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.until(lambda: waiting() == 1.0)
        assert (await left.row()).worker_id == left.other
        await left.remote_recovery.end(session)
        await harness.no_spool()
        await left.is_whole()
    assert waiting() == 0.0


async def test_a_stopping_server_does_not_wait_for_another(leave: Leave, build_harness: Any) -> None:
    left = await leave()
    await left.taken()
    loop = asyncio.get_running_loop()
    async with build_harness(spool_dir=left.settings.spool_dir, close_grace_seconds=30.0) as harness:
        await harness.until(lambda: waiting() == 1.0)
        began = loop.time()
    assert loop.time() - began < 10.0
    assert left.is_spooled()


async def test_a_session_whose_other_server_dies_over_it_is_taken_back(leave: Leave, build_harness: Any) -> None:
    left = await leave(LONG)
    session = await left.taken()
    # The object is built, its row does not state that, and the upload with its parts is over.
    await left.remote_recovery.build_audio(session)
    assert session.audio_uri is None
    async with build_harness(spool_dir=left.settings.spool_dir) as harness:
        await harness.until(lambda: waiting() == 1.0)
        async with left.database.transaction() as connection:
            await connection.exec_driver_sql("DELETE FROM workers WHERE id = $1", (left.other,))
        await harness.no_spool()
        await left.is_whole()


async def test_a_server_of_the_same_name_takes_no_unstored_session_for_stored(leave: Leave, build_harness: Any) -> None:
    left = await leave(LONG)
    await left.ended()
    async with left.database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE realtime_sessions SET has_tails = true WHERE id = $1", (left.id,))
    async with build_harness(spool_dir=left.settings.spool_dir, worker_id=left.other) as harness:
        await harness.no_spool()
        await left.is_whole()


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_verify_repairs_it_as_a_server_would(leave: Leave, sizes: tuple[int, int]) -> None:
    left = await leave(sizes)
    await left.ended()
    home = SpoolHome.claim(left.settings.spool_dir, left.spool.directory.parent.name, None)  # type: ignore[arg-type]
    assert home is not None
    result = await verify(left.settings, repair=True)
    # A living process has it.
    assert [each.kind for each in result.left if each.session_id == left.id] == ["spool_has_more"]
    home.release(delete=False)
    result = await verify(left.settings, repair=True)
    assert [each.kind for each in result.repaired if each.session_id == left.id] == ["spool_has_more"]
    assert not left.is_spooled()
    await left.is_whole()


async def test_verify_names_finals_that_only_the_spool_has(leave: Leave) -> None:
    left = await leave((96_000, 0), (2, 1))
    await left.ended()
    found = [each for each in (await verify(left.settings)).left if each.session_id == left.id]
    assert [(each.kind, each.what) for each in found] == [
        ("spool_has_more", "the spool has finals that are not stored")
    ]
