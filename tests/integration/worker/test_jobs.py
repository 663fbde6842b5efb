"""Batch jobs from their claim to their end, by a worker with a scripted recognizer."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from domain.job import JobRequest
from domain.session_id import format_session_id
from domain.transcript import Utterance, utterances_of
from persistence.postgres.database import Database
from persistence.postgres.lease import Lease
from persistence.s3.keys import audio_key, version_key
from persistence.s3.objects import ObjectStore
from persistence.wav import WavFormat
from tests.batch_jobs import (
    MONO,
    execute,
    job_row,
    make_job,
    make_recording,
    session_row,
    transcript_rows,
    utterance,
    utterance_rows,
)
from tests.scripted_recognizer import ScriptedRecognizer
from worker.model.recognizer import Audio, Plan

pytestmark = pytest.mark.usefixtures("no_jobs")


def noise(seconds: float, wav: WavFormat = MONO, seed: int = 1) -> bytes:
    generator = np.random.default_rng(seed)
    frames = round(seconds * wav.sample_rate) * wav.channels
    if wav.encoding == "pcm_f32le":
        return generator.uniform(-0.5, 0.5, frames).astype("<f4").tobytes()
    if wav.encoding == "pcm_s16le":
        return generator.integers(-9000, 9000, frames).astype("<i2").tobytes()
    return generator.integers(0, 256, frames).astype(np.uint8).tobytes()


async def document(objects: ObjectStore, session_id: uuid.UUID, version: int = 2) -> Any:
    return json.loads(await objects.read(version_key(session_id, version)))


class Gated(ScriptedRecognizer):
    """Does not begin a window from `held` on until `release`."""

    def __init__(self, held: int, **options: Any) -> None:
        super().__init__(**options)
        self.held = held

    def recognize(self, request: JobRequest, plan: Plan, number: int, audio: Audio) -> Sequence[Utterance]:
        while number >= self.held:
            audio.read(0, 1)
        return super().recognize(request, plan, number, audio)

    def release(self) -> None:
        self.held = 1 << 30


async def test_a_recording_is_transcribed_window_by_window(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(5.5), live=[utterance("before")])
    async with start_worker() as worker:
        job = await make_job(database, tenant, session)
        row = await until(job, "completed", "failed")
    assert (row["status"], row["version"], row["done_windows"], row["done_seconds"]) == ("completed", 2, 6, 5.5)
    assert row["rate"] > 0
    assert worker.recognizer.windows == [0, 1, 2, 3, 4, 5]
    stored = await document(objects, session)
    assert stored["session_id"] == format_session_id(session)
    assert (stored["version"], stored["model"], stored["kind"], stored["duration"]) == (2, "accurate", "enhanced", 5.5)
    found = utterances_of(await objects.read(version_key(session, 2)))
    assert [each.text.split()[1] for each in found] == ["0", "1", "2", "3", "4", "5"]
    (version,) = await transcript_rows(database, session)
    assert (version["utterance_count"], version["word_count"], version["verdict"]) == (6, 18, "accepted")
    assert version["uri"].endswith(version_key(session, 2))
    assert (await session_row(database, session))["current_version"] == 2


@pytest.mark.parametrize(
    "wav",
    [WavFormat("mulaw", 8000, 1), WavFormat("pcm_f32le", 44_100, 2), WavFormat("pcm_s16le", 11_025, 1)],
    ids=lambda wav: f"{wav.encoding} {wav.sample_rate} {wav.channels}",
)
async def test_a_resumed_job_makes_the_transcript_of_an_undisturbed_one(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID, wav: WavFormat
) -> None:
    """In every format: a window's samples do not depend on what was read before."""
    audio = noise(6.3, wav)
    sessions = [await make_recording(database, objects, tenant, audio, wav) for _ in range(2)]
    async with start_worker() as worker:
        await until(await make_job(database, tenant, sessions[0]), "completed")
    job = await make_job(database, tenant, sessions[1])
    for held in (2, 5):
        async with start_worker(Gated(held)) as worker:
            await until(job, windows=held)
            await worker.stop()
        row = await job_row(database, job)
        assert (row["status"], row["attempts"], row["done_windows"]) == ("queued", 0, held)
    async with start_worker() as worker:
        row = await until(job, "completed")
        assert worker.recognizer.windows == [5, 6]
        assert worker.recognizer.listened == 0
    undisturbed, resumed = [await document(objects, session) for session in sessions]
    assert resumed | {"session_id": ""} == undisturbed | {"session_id": ""}


async def test_a_joined_recording_is_transcribed_as_one(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    first = await make_recording(database, objects, tenant, noise(2.5), live=[utterance("one two three")])
    second = await make_recording(
        database, objects, tenant, noise(3.0, seed=2), previous_session_id=first, resume_from_seconds=3.5
    )
    async with start_worker():
        row = await until(await make_job(database, tenant, second, linked=True), "completed")
    assert row["chain"] == [first, second]
    assert row["audio_seconds"] == 6.5
    (version,) = await transcript_rows(database, second)
    assert (version["linked"], version["chain_key"]) == (True, row["chain_key"])
    assert (await session_row(database, second))["current_version"] is None
    stored = await document(objects, second)
    assert stored["duration"] == 6.5
    starts = [each["start"] for each in stored["utterances"]]
    assert starts == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("kept_seconds", [3.25, 0.0, -1.0])
async def test_damaged_audio_fails_the_job_with_the_second_at_which_it_ends(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID, kept_seconds: float
) -> None:
    audio = noise(5.0)
    session = await make_recording(database, objects, tenant, audio, live=[utterance("kept")])
    if kept_seconds < 0:
        await objects.delete(audio_key(session))
    else:
        body = MONO.header(len(audio)) + audio[: MONO.bytes_of(kept_seconds)]
        await objects.put(audio_key(session), body, "audio/wav")
    async with start_worker():
        row = await until(await make_job(database, tenant, session), "completed", "failed")
    assert (row["status"], row["error_code"], row["attempts"]) == ("failed", "audio_damaged", 1)
    assert f"ends after {max(0.0, kept_seconds):.3f} of 5.000 seconds" in row["error"]
    assert await utterance_rows(database, session) == []
    assert (await session_row(database, session))["utterance_count"] == 1


async def test_audio_that_is_truncated_while_it_is_read_is_damaged(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    audio = noise(5.0)
    session = await make_recording(database, objects, tenant, audio)
    gated = Gated(2)
    async with start_worker(gated):
        job = await make_job(database, tenant, session)
        await until(job, windows=2)
        body = MONO.header(len(audio)) + audio[: MONO.bytes_of(2.5)]
        await objects.put(audio_key(session), body, "audio/wav")
        gated.release()
        row = await until(job, "completed", "failed")
    assert (row["status"], row["error_code"]) == ("failed", "audio_damaged")
    assert "ends after 2.500 of 5.000 seconds" in row["error"]
    assert await utterance_rows(database, session) == []


async def test_an_unknown_model_fails_the_job_and_the_message_names_the_models(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(1.0))
    async with start_worker():
        row = await until(await make_job(database, tenant, session, model="huge"), "failed")
    assert row["error_code"] == "invalid_model"
    assert row["error"] == "there is no model 'huge'; the models are: accurate, fast"


async def test_an_unknown_language_fails_the_job(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(1.0))
    async with start_worker():
        row = await until(await make_job(database, tenant, session, language="xx"), "failed")
    assert (row["error_code"], row["error"]) == ("invalid_language", "the model 'accurate' does not transcribe 'xx'")


async def test_a_silent_recording_has_an_empty_transcript_unless_the_live_one_has_text(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    silent = await make_recording(database, objects, tenant, bytes(32_000))
    spoken = await make_recording(database, objects, tenant, bytes(32_000), live=[utterance("hello")])
    async with start_worker():
        first = await until(await make_job(database, tenant, silent), "completed", "failed")
        second = await until(await make_job(database, tenant, spoken), "completed", "failed")
    assert (first["status"], (await document(objects, silent))["text"]) == ("completed", "")
    assert (second["status"], second["error_code"]) == ("failed", "no_speech")


async def test_a_recording_without_audio_is_no_error(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, b"")
    async with start_worker():
        row = await until(await make_job(database, tenant, session), "completed", "failed")
    assert (row["status"], row["version"]) == ("completed", 2)


async def test_a_doubtful_transcript_is_stored_and_does_not_become_the_current_one(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(1.0), live=[utterance("word " * 20)])
    async with start_worker():
        await until(await make_job(database, tenant, session), "completed")
    (version,) = await transcript_rows(database, session)
    assert (version["verdict"], version["verdict_reason"]) == ("doubtful", "The new transcript has few words.")
    assert (await session_row(database, session))["current_version"] is None
    assert (await document(objects, session))["version"] == 2


async def test_a_cancelled_job_ends_within_a_window_and_leaves_nothing(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(9.0))
    gated = Gated(3)
    async with start_worker(gated):
        job = await make_job(database, tenant, session)
        await until(job, windows=3)
        await execute(database, "UPDATE transcription_jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
        gated.release()
        await until(job, "canceled")
        assert gated.windows == [0, 1, 2, 3]
    assert await utterance_rows(database, session) == []


async def test_a_cancelled_job_does_not_listen_to_the_end(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    class Listening(ScriptedRecognizer):
        """Listens without end to a job that has no vocabulary."""

        def listen(self, request: JobRequest, audio: Audio) -> Plan:
            while not request.vocabulary:
                audio.read(0, 1)
                time.sleep(0.01)
            return super().listen(request, audio)

    session = await make_recording(database, objects, tenant, noise(3.0))
    async with start_worker(Listening()):
        job = await make_job(database, tenant, session)
        await until(job, "running", step="listening")
        await execute(database, "UPDATE transcription_jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
        await until(job, "canceled")
        after = await make_job(database, tenant, session, vocabulary=["end"])
        row = await until(after, "completed", "failed")
    assert row["status"] == "completed"


async def test_the_job_of_a_deleted_session_ends_within_a_window(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(9.0))
    other = await make_recording(database, objects, tenant, noise(1.0))
    gated = Gated(3)
    async with start_worker(gated, places=1):
        job = await make_job(database, tenant, session)
        await until(job, windows=3)
        await execute(database, "DELETE FROM realtime_sessions WHERE id = :id", id=session)
        gated.release()
        await until(await make_job(database, tenant, other), "completed")
    assert gated.windows == [0, 1, 2, 3, 0]
    assert await utterance_rows(database, session) == []


async def test_an_attempt_that_fails_is_repeated_with_back_off_and_fails_after_the_fifth(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    class Poisoned(ScriptedRecognizer):
        def recognize(self, request: JobRequest, plan: Plan, number: int, audio: Audio) -> Sequence[Utterance]:
            if request.vocabulary and number == 2:
                self.windows.append(number)
                raise RuntimeError("this window breaks the model")
            return super().recognize(request, plan, number, audio)

    poisoned = await make_recording(database, objects, tenant, noise(4.0))
    sound = await make_recording(database, objects, tenant, noise(4.0))
    async with start_worker(Poisoned()) as worker:
        bad = await make_job(database, tenant, poisoned, vocabulary=["poison"])
        good = await make_job(database, tenant, sound)
        row = await until(bad, "completed", "failed")
        assert (await until(good, "completed", "failed"))["status"] == "completed"
    assert (row["status"], row["error_code"]) == ("failed", "internal")
    assert row["error"] == "the transcription failed 5 times"
    # The first attempt has finished windows, so five more follow it.
    assert worker.recognizer.windows.count(2) == 7
    assert row["attempts"] == 5
    assert await utterance_rows(database, poisoned) == []


async def test_a_job_waits_for_s3_and_makes_no_attempt_meanwhile(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID, s3_proxy: Any
) -> None:
    session = await make_recording(database, objects, tenant, noise(5.0))
    gated = Gated(2)
    async with start_worker(gated, s3_deadline_seconds=0.5):
        job = await make_job(database, tenant, session)
        await until(job, windows=2)
        s3_proxy.refuse()
        gated.release()
        await until(job, "running", step="retry")
        s3_proxy.restore()
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"]) == ("completed", 1)
    assert gated.windows == [0, 1, 2, 3, 4]
    assert gated.listened == 1


@pytest.mark.parametrize("fault", ["refuse", "stall"])
async def test_a_job_waits_for_postgres_and_continues(
    start_worker: Any,
    until: Any,
    database: Database,
    objects: ObjectStore,
    tenant: uuid.UUID,
    postgres_proxy: Any,
    fault: str,
) -> None:
    session = await make_recording(database, objects, tenant, noise(5.0))
    gated = Gated(2)
    async with start_worker(gated, database_deadline_seconds=0.5):
        job = await make_job(database, tenant, session)
        await until(job, windows=2)
        getattr(postgres_proxy, fault)()
        gated.release()
        await asyncio.sleep(1.5)
        if fault == "stall":
            postgres_proxy.cut()
        postgres_proxy.restore()
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"]) == ("completed", 1)
    assert gated.windows == [0, 1, 2, 3, 4]


async def test_a_worker_that_was_considered_dead_drops_its_job_and_the_other_completes_it(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(5.0))
    paused = Gated(2)
    async with start_worker(paused):
        job = await make_job(database, tenant, session)
        await until(job, windows=2)
        # As if its machine had stopped for longer than the lease.
        await execute(
            database,
            "UPDATE transcription_jobs SET status = 'queued', worker_id = NULL, step = NULL, due_at = 'infinity'"
            " WHERE id = :id",
            id=job,
        )
        async with start_worker() as other:
            paused.release()
            await asyncio.sleep(0.5)
            await execute(database, "UPDATE transcription_jobs SET due_at = now() WHERE id = :id", id=job)
            row = await until(job, "completed", "failed")
            done = other.recognizer.windows + paused.windows[3:]
    assert (row["status"], row["claim"], row["version"]) == ("completed", 2, 2)
    assert paused.windows[:3] == [0, 1, 2], "it computed a window that it could not store"
    assert done == [2, 3, 4]
    assert len(await utterance_rows(database, session)) == 5


async def test_the_claim_whose_answer_was_lost_is_queued_again(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(1.0))
    async with start_worker() as worker:
        # A claim of this worker that it does not know of.
        await execute(
            database,
            "INSERT INTO transcription_jobs"
            " (id, tenant_id, session_id, kind, model, language, status, worker_id, claim, attempts)"
            " VALUES (:id, :tenant, :session, 'enhance', 'accurate', 'auto', 'running', :worker, 1, 1)",
            id=session,
            tenant=tenant,
            session=session,
            worker=worker.persistence.worker_id,
        )
        row = await until(session, "completed", "failed")
    assert (row["status"], row["claim"]) == ("completed", 2)


async def test_a_job_continues_from_its_row_after_a_failover_has_lost_a_window(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(6.0))
    gated = Gated(4)
    async with start_worker(gated):
        job = await make_job(database, tenant, session)
        await until(job, windows=4)
        await execute(database, "UPDATE transcription_jobs SET done_windows = 2 WHERE id = :id", id=job)
        await execute(database, "DELETE FROM transcript_utterances WHERE session_id = :id AND index >= 2", id=session)
        gated.release()
        row = await until(job, "completed", "failed")
    assert (row["status"], gated.windows) == ("completed", [0, 1, 2, 3, 4, 2, 3, 4, 5])
    assert [each["index"] for each in await utterance_rows(database, session)] == [0, 1, 2, 3, 4, 5]


async def test_a_job_waits_while_a_server_on_the_machine_is_behind(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(3.0))
    server = Lease(database, f"server-{tenant}", 60.0, 5.0)
    server.is_behind = lambda: True
    await server.register()
    await server.renew()
    async with start_worker() as worker:
        job = await make_job(database, tenant, session)
        await until(job, "running", step="capacity")
        assert worker.recognizer.windows == []
        await server.end(has_left_work=False)
        row = await until(job, "completed", "failed")
    assert row["status"] == "completed"


async def test_a_plan_of_another_release_is_made_anew(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(3.0))
    gated = Gated(2)
    async with start_worker(gated) as worker:
        job = await make_job(database, tenant, session)
        await until(job, windows=2)
        await worker.stop()
    await execute(database, "UPDATE transcription_jobs SET plan = '[]' WHERE id = :id", id=job)
    async with start_worker() as worker:
        row = await until(job, "completed", "failed")
    assert (row["status"], worker.recognizer.windows) == ("completed", [0, 1, 2])
    assert len(await utterance_rows(database, session)) == 3
