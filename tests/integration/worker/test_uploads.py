"""Jobs of uploaded files: decoded once, and then transcribed like recordings."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from domain.transcript import utterances_of
from persistence.errors import ObjectNotFound, ObjectStoreUnavailable
from persistence.postgres.database import Database
from persistence.s3.keys import source_key, version_key, waveform_key
from persistence.s3.objects import ObjectStore
from persistence.storing.waveforms import WaveformStore
from server.audio.decoder import MODEL_RATE
from tests.batch_jobs import execute, job_row, make_job, make_session, session_row, transcript_rows, utterance_rows
from tests.integration.worker.test_jobs import Gated
from tests.media_files import encoded, speech
from tests.waveforms import read_waveform
from worker.audio.scratch_folder import scratch_folder
from worker.jobs import job_run

pytestmark = pytest.mark.usefixtures("no_jobs")


def flac(seconds: float) -> bytes:
    return encoded("flac", "flac", speech(seconds), MODEL_RATE)


def has_files(folder: Path) -> bool:
    return any(folder.iterdir())


async def make_upload(database: Database, objects: ObjectStore, tenant: uuid.UUID, file: bytes | None) -> uuid.UUID:
    session = await make_session(
        database, tenant, 0, source="upload", store_audio=False, audio_uri=None, media_type="audio/flac"
    )
    if file is not None:
        await objects.put(source_key(session), file, "audio/flac")
    return await make_job(database, tenant, session, kind="upload")


async def test_an_uploaded_file_is_decoded_and_transcribed(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID, tmp_path: Path
) -> None:
    job = await make_upload(database, objects, tenant, flac(4.5))
    async with start_worker():
        row = await until(job, "completed", "failed")
        assert (row["status"], row["error"], row["version"]) == ("completed", None, 1)
        assert row["audio_seconds"] == pytest.approx(4.5, abs=0.001)
        assert not has_files(tmp_path), "decoded audio is removed"
    session = await session_row(database, row["session_id"])
    assert (session["current_version"], session["utterance_count"], session["word_count"]) == (1, 5, 15)
    assert session["audio_duration_seconds"] == pytest.approx(4.5, abs=0.001)
    (version,) = await transcript_rows(database, row["session_id"])
    assert (version["kind"], version["version"]) == ("upload", 1)
    assert len(utterances_of(await objects.read(version_key(row["session_id"], 1)))) == 5


async def test_the_waveform_of_an_uploaded_file_is_made_by_its_first_job_only(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    job = await make_upload(database, objects, tenant, flac(4.5))
    async with start_worker() as worker:
        row = await until(job, "completed")
        key = waveform_key(row["session_id"])
        waveform = read_waveform(await objects.read(key))
        assert (waveform.sample_rate, waveform.seconds) == (MODEL_RATE, pytest.approx(4.5, abs=0.1))
        assert not waveform.is_silent
        made = await objects.size_and_version(key)
        again = await make_job(database, tenant, row["session_id"], kind="upload")
        await until(again, "completed")
        assert await objects.size_and_version(key) == made
        assert worker.recognizer.listened == 2


async def test_a_waveform_that_cannot_be_stored_is_tried_again_without_decoding_again(
    start_worker: Any,
    until: Any,
    database: Database,
    objects: ObjectStore,
    tenant: uuid.UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[int] = []
    failures = [ObjectStoreUnavailable("away"), ObjectStoreUnavailable("away")]
    write, decode = WaveformStore.write, job_run.decoded_file

    async def failing(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await write(*arguments)

    def counted(*arguments: Any) -> Any:
        decoded.append(1)
        return decode(*arguments)

    monkeypatch.setattr(WaveformStore, "write", failing)
    monkeypatch.setattr(job_run, "decoded_file", counted)
    job = await make_upload(database, objects, tenant, flac(4.5))
    async with start_worker():
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"], len(decoded)) == ("completed", 1, 1)
    assert await objects.size(waveform_key(row["session_id"])) > 24


async def test_a_file_that_cannot_be_decoded_has_no_waveform(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    job = await make_upload(database, objects, tenant, b"no media file at all" * 100)
    async with start_worker():
        row = await until(job, "failed")
    with pytest.raises(ObjectNotFound):
        await objects.read(waveform_key(row["session_id"]))


async def test_a_resumed_upload_makes_the_transcript_of_an_undisturbed_one(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    jobs = [await make_upload(database, objects, tenant, flac(5.0)) for _ in range(2)]
    async with start_worker() as worker:
        undisturbed = await until(jobs[0], "completed")
        await until(jobs[1], "completed")
    resumed = await make_upload(database, objects, tenant, flac(5.0))
    async with start_worker(Gated(3)) as worker:
        await until(resumed, windows=3)
        await worker.stop()
    async with start_worker() as worker:
        row = await until(resumed, "completed")
        assert (worker.recognizer.windows, worker.recognizer.listened) == ([3, 4], 0)
    texts = [
        [each["text"] for each in await utterance_rows(database, each["session_id"])] for each in (undisturbed, row)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("file", "code"), [(b"no media file at all" * 100, "undecodable"), (None, "audio_damaged"), (b"", "undecodable")]
)
async def test_a_file_that_cannot_be_decoded_fails_its_job_at_once(
    start_worker: Any,
    until: Any,
    database: Database,
    objects: ObjectStore,
    tenant: uuid.UUID,
    file: bytes | None,
    code: str,
) -> None:
    job = await make_upload(database, objects, tenant, file)
    async with start_worker():
        row = await until(job, "completed", "failed")
    assert (row["status"], row["error_code"], row["attempts"]) == ("failed", code, 1)
    assert row["error"]


async def test_a_job_waits_for_room_on_the_disk_and_makes_no_attempt_meanwhile(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    job = await make_upload(database, objects, tenant, flac(3.0))
    async with start_worker() as worker:
        worker.scratch.count(1 << 30)
        await until(job, "running", step="retry")
        worker.scratch.release(1 << 30)
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"]) == ("completed", 1)


async def test_the_job_of_an_upload_can_be_cancelled_while_it_waits(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    job = await make_upload(database, objects, tenant, flac(3.0))
    async with start_worker() as worker:
        worker.scratch.count(1 << 30)
        await until(job, "running", step="retry")
        await execute(database, "UPDATE transcription_jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
        await until(job, "canceled")
    assert (await job_row(database, job))["version"] is None


def test_what_killed_workers_left_on_the_disk_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "worker-left").mkdir()
    (tmp_path / "worker-left" / "audio").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    with scratch_folder(tmp_path) as first:
        (first / "audio").write_bytes(b"x")
        with scratch_folder(tmp_path) as second:
            assert (first / "audio").exists()
            assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["other", first.name, second.name])
    assert [each.name for each in tmp_path.iterdir()] == ["other"]
