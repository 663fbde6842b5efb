"""The spool of a dead server whose session another may end, and what is to come of the two."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text

from domain.tenancy import DEFAULT_TENANT_ID
from domain.transcript import Utterance
from persistence.config import PersistenceSettings
from persistence.postgres.database import Database
from persistence.postgres.finals import numbered
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.s3.keys import audio_key, transcript_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED, StoredSession
from persistence.spool.session_spool import SessionSpool
from persistence.spool.spool_home import SpoolHome
from persistence.storing.audio_upload import AudioUpload
from persistence.storing.degradations import Degradations
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.shipper import Shipper
from persistence.verify import verify
from persistence.wav import WavFormat
from tests.integration.persistence.test_sessions import a_start

WAV = WavFormat("pcm_s16le", 16000, 1)


def a_final(number: int) -> Utterance:
    return Utterance(float(number), number + 1.0, f"this is final {number}", 0.5, "en")


@dataclass
class AbandonedSession:
    """A session of a dead server, its spool, and the steps of another server that ends it."""

    settings: PersistenceSettings
    database: Database
    objects: ObjectStore
    spool: SessionSpool
    audio: bytes
    finals: int
    other: str

    @property
    def id(self) -> uuid.UUID:
        return self.spool.manifest.start.id

    @property
    def session_id(self) -> str:
        return self.spool.manifest.start.session_id

    @property
    def ownership(self) -> Ownership:
        return Ownership(self.database, self.other)

    @property
    def remote_recovery(self) -> RemoteRecovery:
        return RemoteRecovery(self.objects, SessionRows(self.database, self.other))

    async def taken(self) -> StoredSession:
        """The other server takes it and begins to end it."""
        await Lease(self.database, self.other, 60.0, 1.0).register()
        ownership = self.ownership
        await ownership.adopt([self.spool.manifest.start.worker_id], [], INTERRUPTED, datetime.now(UTC))
        assert await ownership.begin_recovery(self.id)
        session = await ownership.read_own(self.id)
        assert session is not None
        return session

    async def ended(self) -> StoredSession:
        """The other server ends it from S3."""
        await self.remote_recovery.end(await self.taken())
        return await self.row()

    async def row(self) -> StoredSession:
        row = await self.ownership.read(self.id)
        assert row is not None
        return row

    async def jobs(self) -> list[tuple[str, float]]:
        """The status of each of its batch jobs and the seconds of audio, oldest first."""
        query = text(
            "SELECT status, audio_seconds FROM transcription_jobs WHERE session_id = :id ORDER BY created_at, id"
        )
        async with self.database.transaction() as connection:
            return [(row.status, row.audio_seconds) for row in await connection.execute(query, {"id": self.id})]

    async def complete_jobs(self) -> None:
        """A worker completes its jobs."""
        statement = text("UPDATE transcription_jobs SET status = 'completed', ended_at = now() WHERE session_id = :id")
        async with self.database.transaction() as connection:
            await connection.execute(statement, {"id": self.id})

    async def wav(self) -> bytes:
        return await self.objects.read(audio_key(self.id))

    async def is_whole(self) -> None:
        """Every byte, every final, and a row that agrees."""
        row = await self.row()
        assert await self.wav() == WAV.header(len(self.audio)) + self.audio
        assert (row.stored_bytes, row.audio_duration_seconds) == (len(self.audio), WAV.seconds(len(self.audio)))
        assert (row.status, row.utterance_count, row.has_tails) == ("interrupted", self.finals, False)
        assert row.recover_after is None
        transcript = (await self.objects.read(transcript_key(self.id))).decode()
        assert [a_final(number).text in transcript for number in range(self.finals)] == [True] * self.finals
        found = {each.kind for each in (await verify(self.settings)).remaining if each.session_id == self.id}
        # The caller deletes the spool, as the last step.
        assert found == ({"spool_left"} if self.is_spooled() else set())

    def is_spooled(self) -> bool:
        return self.spool.directory.exists()


async def abandoned_by_a_dead_server(
    settings: PersistenceSettings,
    database: Database,
    objects: ObjectStore,
    sizes: tuple[int, int],
    finals: tuple[int, int],
) -> AbandonedSession:
    """A session that was running.

    Args:
        sizes: bytes of audio that S3 has, and that only the spool has.
        finals: how many the database has, and how many only the spool has.
    """
    dead = f"dead-{uuid.uuid4().hex[:8]}"
    start = a_start(DEFAULT_TENANT_ID, worker_id=dead, enhance_on_end=True)
    rows = SessionRows(database, dead)
    await rows.insert([start])
    home = SpoolHome.open(settings.spool_dir, dead)
    spool = home.create(start)
    audio = random.Random(1).randbytes(sum(sizes))
    await _ship(spool, Shipper(objects, rows, flush_seconds=0.0), audio[: sizes[0]])
    await asyncio.to_thread(_append, spool, audio[sizes[0] :])
    for number in range(sum(finals)):
        spool.append_utterance(a_final(number))
    for batch in numbered(start.id, [a_final(number) for number in range(finals[0])]):
        await rows.write({}, batch)
    spool.close()
    home.release(delete=False)
    reopened = SessionSpool.open(spool.directory)
    assert reopened is not None
    other = f"other-{uuid.uuid4().hex[:8]}"
    return AbandonedSession(settings, database, objects, reopened, audio, sum(finals), other)


def _append(spool: SessionSpool, audio: bytes) -> None:
    for at in range(0, len(audio), 64_000):
        spool.append_audio(audio[at : at + 64_000])


async def _ship(spool: SessionSpool, shipper: Shipper, audio: bytes) -> None:
    """As a running session is shipped, until S3 has all of it."""
    upload: AudioUpload = shipper.begin(spool, Degradations())
    part_batcher = asyncio.create_task(shipper.run())
    await asyncio.to_thread(_append, spool, audio)
    upload.appended()
    async with asyncio.timeout(20):
        while upload.stored_bytes < len(audio) or _has_full_unreleased(spool):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await shipper.close()
    part_batcher.cancel()


def _has_full_unreleased(spool: SessionSpool) -> bool:
    return len(spool.segments()) > 2
