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
from tests.integration.persistence.abandoned_spool import WAV, AbandonedSession, a_final, abandoned_by_a_dead_server

pytestmark = pytest.mark.usefixtures("empty_store")

SHORT = (96_000, 64_000)
LONG = (12_800_000, 4_000_000)
"""Audio that S3 has and audio that only the spool has; the long one's second part is gone from the spool."""

Abandon = Callable[..., Awaitable[AbandonedSession]]


@pytest.fixture
def abandon(make_settings: Any, database: Database, objects: ObjectStore) -> Abandon:
    def create(sizes: tuple[int, int] = SHORT, finals: tuple[int, int] = (2, 1)) -> Awaitable[AbandonedSession]:
        return abandoned_by_a_dead_server(make_settings(), database, objects, sizes, finals)

    return create


def reconciliation_of(abandoned: AbandonedSession, worker_id: str) -> SpoolReconciliation:
    rows = SessionRows(abandoned.database, worker_id)
    return SpoolReconciliation(abandoned.objects, rows, Ownership(abandoned.database, worker_id))


async def settle(abandoned: AbandonedSession, reconciliation: SpoolReconciliation | None = None) -> SpoolStatus:
    reconciliation = reconciliation or reconciliation_of(abandoned, f"next-{uuid.uuid4().hex[:8]}")
    return await reconciliation.settle(abandoned.spool, conclusion_of(abandoned.spool).progress)


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_a_start_on_the_spool_adds_what_only_it_has(
    abandon: Abandon, build_harness: Any, sizes: tuple[int, int]
) -> None:
    abandoned = await abandon(sizes)
    before = await abandoned.ended()
    assert before.stored_bytes == sizes[0]
    assert before.utterance_count == 2
    segments = [path.name for path in abandoned.spool.segments()]
    assert segments == (["audio.00001"] if sizes == SHORT else ["audio.00001", "audio.00003", "audio.00004"])
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        old = await harness.record(abandoned.session_id)
        await harness.no_spool()
        await abandoned.is_whole()
        new = await harness.record(abandoned.session_id)
        # A tenant may have read when it ended, and how.
        assert (new.status, new.error, new.ended_at) == (old.status, old.error, old.ended_at)
        assert new.worker_id == harness.settings.worker_id
    assert list(abandoned.settings.spool_dir.iterdir()) == []


async def test_audio_that_a_spool_adds_after_the_batch_job_makes_another_job(abandon: Abandon) -> None:
    abandoned = await abandon()
    await abandoned.ended()
    before = WAV.seconds(SHORT[0])
    assert await abandoned.jobs() == [("queued", before)]
    await abandoned.complete_jobs()
    assert await settle(abandoned) is SpoolStatus.STORED
    both = [("completed", before), ("queued", WAV.seconds(sum(SHORT)))]
    assert await abandoned.jobs() == both
    await settle(abandoned)
    assert await abandoned.jobs() == both


async def test_finals_alone_are_added(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon((96_000, 0), (2, 1_200))
    await abandoned.ended()
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        await abandoned.is_whole()


async def test_finals_lost_from_the_spool_in_a_power_cut_are_transcribed(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon(SHORT, (3, 0))
    lines = abandoned.spool.directory / "utterances.jsonl"
    lines.write_bytes(a_final(0).to_line() + a_final(1).to_line()[:20])
    # Figures are written before the finals of a long outage: the row may have counted more than anybody has.
    statement = "UPDATE realtime_sessions SET utterance_count = 9, word_count = 99 WHERE id = $1"
    async with abandoned.database.transaction() as connection:
        await connection.exec_driver_sql(statement, (abandoned.id,))
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        await abandoned.is_whole()
        transcript = await harness.transcript(abandoned.session_id)
        assert [each["text"] for each in transcript["utterances"]] == [a_final(number).text for number in range(3)]
        assert transcript["duration"] == WAV.seconds(len(abandoned.audio))
        assert (await harness.record(abandoned.session_id)).word_count == 12


async def test_a_spool_with_nothing_more_is_deleted_and_changes_nothing(abandon: Abandon) -> None:
    abandoned = await abandon((96_000, 0), (2, 0))
    before = await abandoned.ended()
    assert await settle(abandoned) is SpoolStatus.STORED
    assert await abandoned.row() == before


@pytest.mark.parametrize("sizes", [SHORT, (96_000, 0)])
async def test_objects_that_a_paused_process_sent_late_are_deleted_with_its_spool(
    abandon: Abandon, sizes: tuple[int, int]
) -> None:
    abandoned = await abandon(sizes)
    await abandoned.ended()
    await abandoned.objects.put(tail_key(abandoned.id, Tail(32_000, 4)), b"late", "application/octet-stream")
    await abandoned.objects.create_upload(audio_key(abandoned.id), "audio/wav")
    assert await settle(abandoned) is SpoolStatus.STORED
    assert await abandoned.objects.list(tail_prefix(abandoned.id)) == []
    assert await abandoned.objects.uploads(audio_key(abandoned.id)) == []
    await abandoned.is_whole()


async def test_a_deleted_session_stays_deleted_and_its_spool_is_deleted(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon()
    await abandoned.ended()
    await delete_session(SessionStore(abandoned.database), abandoned.objects, DEFAULT_TENANT_ID, abandoned.id)
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        assert await harness.row_of(abandoned.session_id) is None
        assert not await harness.has_objects(abandoned.session_id)


def stored_audio() -> tuple[float, float]:
    names = ("dalston_stored_audio_bytes_total", "dalston_stored_audio_seconds_total")
    bytes_, seconds = (REGISTRY.get_sample_value(name) or 0.0 for name in names)
    return bytes_, seconds


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_audio_counts_as_stored_once_also_when_a_restart_finishes_its_session(
    abandon: Abandon, build_harness: Any, sizes: tuple[int, int]
) -> None:
    before = stored_audio()
    abandoned = await abandon(sizes)
    assert stored_audio()[0] - before[0] == sizes[0]
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        await abandoned.is_whole()
    after = stored_audio()
    assert after[0] - before[0] == len(abandoned.audio)
    assert after[1] - before[1] == pytest.approx(WAV.seconds(len(abandoned.audio)))


async def test_audio_of_an_unrecorded_object_is_not_counted_again(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon()
    await abandoned.objects.put(
        audio_key(abandoned.id), WAV.header(len(abandoned.audio)) + abandoned.audio, "audio/wav"
    )
    before = stored_audio()
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        await abandoned.is_whole()
    assert stored_audio() == before


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_a_delete_while_the_audio_is_put_leaves_nothing(
    abandon: Abandon, build_harness: Any, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int]
) -> None:
    abandoned = await abandon(sizes)
    await abandoned.ended()
    real = ExtendedAudio.read

    async def read_and_delete(self: ExtendedAudio, begin: int, end: int) -> bytes:
        audio = await real(self, begin, end)
        if part_of(WAV, begin) == (1 if sizes == SHORT else 4):
            with suppress(Exception):
                await delete_session(
                    SessionStore(abandoned.database), abandoned.objects, DEFAULT_TENANT_ID, abandoned.id
                )
        return audio

    monkeypatch.setattr(ExtendedAudio, "read", read_and_delete)
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        assert await harness.row_of(abandoned.session_id) is None
        assert not await harness.has_objects(abandoned.session_id)
        assert await abandoned.objects.uploads(audio_key(abandoned.id)) == []


async def test_one_of_several_simultaneous_reclaims_succeeds(abandon: Abandon) -> None:
    abandoned = await abandon()
    before = await abandoned.ended()
    owners = [Ownership(abandoned.database, f"owner-{number}") for number in range(6)]
    results = await asyncio.gather(*(other.reclaim(abandoned.id, before.worker_id) for other in owners))
    assert sorted(results) == [False] * 5 + [True]
    # Two whole claims at once end as one does.
    outcomes = await asyncio.gather(*(settle(abandoned) for _ in range(2)), return_exceptions=True)
    assert SpoolStatus.STORED in outcomes or await settle(abandoned) is SpoolStatus.STORED
    assert await settle(abandoned) is SpoolStatus.STORED
    await abandoned.is_whole()


async def test_a_session_that_runs_or_is_deleted_is_never_reclaimed(abandon: Abandon) -> None:
    abandoned = await abandon()
    other = Ownership(abandoned.database, "other")
    owner = abandoned.spool.manifest.start.worker_id
    assert not await other.reclaim(abandoned.id, owner)
    ended = await abandoned.ended()
    await SessionStore(abandoned.database).soft_delete(DEFAULT_TENANT_ID, abandoned.id)
    assert not await other.reclaim(abandoned.id, ended.worker_id)
    assert not await other.reclaim(abandoned.id, owner)


STEPS = ["reclaim", "write", "upload_part", "complete_upload", "put", "abort_uploads", "set_stored"]


# After a step the stores are as they are before the next: only the last one is also interrupted when it is done.
@pytest.mark.parametrize(("step", "is_done"), [*((step, False) for step in STEPS), (STEPS[-1], True)])
async def test_an_extension_interrupted_at_any_step_is_repeated_and_stays_readable(
    abandon: Abandon, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> None:
    abandoned = await abandon(LONG)
    await abandoned.ended()
    before = await abandoned.wav()
    reconciliation = reconciliation_of(abandoned, "killed")
    rows, ownership, objects = reconciliation._rows, reconciliation._ownership, abandoned.objects
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
            await settle(abandoned, reconciliation)
    assert await abandoned.wav() in (before, WAV.header(len(abandoned.audio)) + abandoned.audio)
    assert (await abandoned.row()).is_stored
    assert await settle(abandoned) is SpoolStatus.STORED
    await abandoned.is_whole()


# The test above interrupts every step; this one kills a process.
@pytest.mark.parametrize("seconds", [0.1])
async def test_a_server_killed_while_it_adds_is_followed_by_another(
    abandon: Abandon, build_harness: Any, a_killable_server: Any, seconds: float
) -> None:
    abandoned = await abandon(LONG)
    await abandoned.ended()
    before = await abandoned.wav()
    async with a_killable_server(abandoned.settings) as (process, _):
        async with asyncio.timeout(20):
            while (await abandoned.row()).worker_id == abandoned.other:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await abandoned.wav() in (before, WAV.header(len(abandoned.audio)) + abandoned.audio)
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        await abandoned.is_whole()


async def with_a_gap(abandoned: AbandonedSession) -> None:
    await abandoned.objects.put(
        audio_key(abandoned.id), WAV.header(6_000_000) + abandoned.audio[:6_000_000], "audio/wav"
    )


async def with_another_format(abandoned: AbandonedSession) -> None:
    directory = abandoned.spool.directory
    start = replace(abandoned.spool.manifest.start, encoding="mulaw")
    (directory / "session.json").write_bytes(replace(abandoned.spool.manifest, start=start).to_json())


async def with_a_damaged_object(abandoned: AbandonedSession) -> None:
    await abandoned.objects.put(audio_key(abandoned.id), b"no recording" * 100, "audio/wav")


@pytest.mark.parametrize("damage", [with_a_gap, with_another_format, with_a_damaged_object])
async def test_audio_that_does_not_join_stays_spooled_and_verify_reports_it(
    abandon: Abandon, build_harness: Any, damage: Callable[[AbandonedSession], Awaitable[None]]
) -> None:
    abandoned = await abandon(LONG)
    await abandoned.ended()
    await damage(abandoned)
    before, wav, known = await abandoned.row(), await abandoned.wav(), apart()
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.until(lambda: apart() == known + 1)
    assert abandoned.is_spooled()
    assert (await abandoned.row(), await abandoned.wav()) == (before, wav)
    # The stack has left work behind, so a repair waits as long as its own lease lasts.
    soon = abandoned.settings.model_copy(update={"lease_seconds": 2.0, "lease_renewal_seconds": 0.5})
    found = [each for each in (await verify(soon, repair=True)).remaining if each.session_id == abandoned.id]
    assert "spool_has_more" in {each.kind for each in found}
    assert abandoned.is_spooled()
    assert (await abandoned.row()).worker_id == before.worker_id


def apart() -> float:
    return REGISTRY.get_sample_value("dalston_spools_apart_total") or 0.0


def waiting() -> float:
    return REGISTRY.get_sample_value("dalston_spools_waiting") or 0.0


async def test_a_session_that_another_server_is_ending_is_waited_for(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon()
    session = await abandoned.taken()
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.until(lambda: waiting() == 1.0)
        assert (await abandoned.row()).worker_id == abandoned.other
        await abandoned.remote_recovery.end(session)
        await harness.no_spool()
        await abandoned.is_whole()
    assert waiting() == 0.0


async def test_a_stopping_server_does_not_wait_for_another(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon()
    await abandoned.taken()
    loop = asyncio.get_running_loop()
    async with build_harness(spool_dir=abandoned.settings.spool_dir, close_grace_seconds=30.0) as harness:
        await harness.until(lambda: waiting() == 1.0)
        began = loop.time()
    assert loop.time() - began < 10.0
    assert abandoned.is_spooled()


async def test_a_session_whose_other_server_dies_over_it_is_taken_back(abandon: Abandon, build_harness: Any) -> None:
    abandoned = await abandon(LONG)
    session = await abandoned.taken()
    # The object is built, its row does not state that, and the upload with its parts is over.
    await abandoned.remote_recovery.build_audio(session)
    assert session.audio_uri is None
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.until(lambda: waiting() == 1.0)
        async with abandoned.database.transaction() as connection:
            await connection.exec_driver_sql("DELETE FROM workers WHERE id = $1", (abandoned.other,))
        await harness.no_spool()
        await abandoned.is_whole()


async def test_a_server_of_the_same_name_takes_no_unstored_session_for_stored(
    abandon: Abandon, build_harness: Any
) -> None:
    abandoned = await abandon(LONG)
    await abandoned.ended()
    async with abandoned.database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE realtime_sessions SET has_tails = true WHERE id = $1", (abandoned.id,))
    async with build_harness(spool_dir=abandoned.settings.spool_dir, worker_id=abandoned.other) as harness:
        await harness.no_spool()
        await abandoned.is_whole()


@pytest.mark.parametrize("sizes", [SHORT, LONG])
async def test_verify_repairs_it_as_a_server_would(abandon: Abandon, sizes: tuple[int, int]) -> None:
    abandoned = await abandon(sizes)
    await abandoned.ended()
    home = SpoolHome.claim(abandoned.settings.spool_dir, abandoned.spool.directory.parent.name, None)  # type: ignore[arg-type]
    assert home is not None
    result = await verify(abandoned.settings, repair=True)
    # A living process has it.
    assert [each.kind for each in result.remaining if each.session_id == abandoned.id] == ["spool_has_more"]
    home.release(delete=False)
    result = await verify(abandoned.settings, repair=True)
    assert [each.kind for each in result.repaired if each.session_id == abandoned.id] == ["spool_has_more"]
    assert not abandoned.is_spooled()
    await abandoned.is_whole()


async def test_verify_names_finals_that_only_the_spool_has(abandon: Abandon) -> None:
    abandoned = await abandon((96_000, 0), (2, 1))
    await abandoned.ended()
    found = [each for each in (await verify(abandoned.settings)).remaining if each.session_id == abandoned.id]
    assert [(each.kind, each.what) for each in found] == [
        ("spool_has_more", "the spool has finals that are not stored")
    ]
