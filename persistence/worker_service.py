"""The entry point of persistence for workers: batch jobs, the audio that they transcribe, and what they store."""

import asyncio
import hashlib
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from domain.errors import SessionNotFound, StorageUnavailable
from domain.session_id import format_session_id
from domain.transcript import DocumentVersion, Utterance
from persistence.background import running
from persistence.config import PersistenceSettings
from persistence.errors import AudioDamaged, JobLost, ObjectNotFound
from persistence.job_values import Claim
from persistence.postgres.chains import ChainStore
from persistence.postgres.database import open_database
from persistence.postgres.job_claims import (
    DEFAULT_MAX_JOBS,
    MAX_ATTEMPTS,
    JobClaims,
    LostJobs,
    retry_seconds,
)
from persistence.postgres.job_notifier import JobNotifier
from persistence.postgres.lease import Lease
from persistence.postgres.process_reports import ProcessReports
from persistence.recording_file import RecordingFile, open_recording
from persistence.s3.keys import source_key, version_key
from persistence.s3.linked import session_spans
from persistence.s3.objects import ObjectStore, open_objects
from persistence.session_values import StoredSession
from persistence.storage_outages import storage_outages
from persistence.storing.version_writer import put_version
from persistence.storing.waveforms import WaveformStore
from telemetry.logs import get_logger

log = get_logger(__name__)

__all__ = [
    "MAX_ATTEMPTS",
    "RecordingFile",
    "SourceFile",
    "WorkerPersistence",
    "open_worker_persistence",
    "retry_seconds",
]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An uploaded file in the bucket."""

    key: str
    size: int
    etag: str
    _objects: ObjectStore

    @property
    def identity(self) -> bytes:
        """Differs whenever the bytes may differ: a SHA-256."""
        return hashlib.sha256(f"{self.key} {self.size} {self.etag}".encode()).digest()

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its bytes, at most 64 KiB at a time."""
        return self._objects.get_range(self.key, 0, self.size)


@dataclass(frozen=True, slots=True)
class WorkerPersistence:
    """The interface of persistence for a worker. All methods raise StorageUnavailable while a store is unavailable."""

    worker_id: str
    claims: JobClaims
    due: asyncio.Event
    """Set when a job may be due; the worker clears it."""
    lost: asyncio.Event
    """Set when another process has the worker id of this one: it should exit."""
    reports: ProcessReports
    waveforms: WaveformStore
    _lost_jobs: LostJobs
    _chains: ChainStore
    _objects: ObjectStore

    async def requeue_unknown(self, known: Sequence[UUID]) -> None:
        """Queues the jobs of this worker again that it does not do.

        Args:
            known: those that it does.
        """
        for job in await self._lost_jobs.requeue_unknown(self.worker_id, known):
            session_id = format_session_id(job.session_id)
            log.warning("a job that this worker did not know of is queued again", session_id=session_id)

    async def recording(self, claim: Claim) -> RecordingFile:
        """Opens the recording that a job transcribes: of one session, or of those that it continues, too.

        Raises:
            JobLost: the session was deleted.
            AudioDamaged: the stored audio is shorter than its row states, or no recording.
            AudioNotStored, SessionActive: the audio of a session, which the message names, cannot be read.
        """
        return await open_recording(self._objects, await self._chain(claim))

    async def source(self, claim: Claim) -> SourceFile:
        """The uploaded file that a job transcribes.

        Raises:
            AudioDamaged: there is none.
        """
        key = source_key(claim.session_id)
        try:
            size, etag = await self._objects.size_and_version(key)
        except ObjectNotFound as error:
            raise AudioDamaged(0.0, 0.0) from error
        return SourceFile(key, size, etag, self._objects)

    async def live_utterances(self, claim: Claim) -> list[Utterance]:
        """Version 1 of the transcript of the audio that a job transcribes, on the time axis of that audio.

        Raises:
            JobLost: the session was deleted.
        """
        found: list[Utterance] = []
        for span in session_spans(await self._chain(claim)):
            end = math.inf if span.frames is None else span.frames / span.session.sample_rate
            spoken = await self.claims.first_transcript(span.session.id)
            included = [each for each in spoken if (each.start + each.end) / 2 < end]
            found += [each.moved(span.offset_seconds) for each in included] if span.offset_frames else included
        return found

    async def _chain(self, claim: Claim) -> tuple[StoredSession, ...]:
        try:
            return await self._chains.read(claim.tenant_id, claim.session_id, linked=claim.request.linked)
        except SessionNotFound as error:
            raise JobLost from error

    async def put_transcript(
        self, claim: Claim, version: DocumentVersion, language: str, seconds: float, utterances: Sequence[Utterance]
    ) -> str:
        """Stores the document of a version; returns its URI.

        Args:
            claim: the job.
            version: the version.
            language: ISO 639-1.
            seconds: the length of the recording.
            utterances: all of its utterances.
        """
        return await put_version(self._objects, claim.session_id, version, language, seconds, utterances)

    async def remove_transcript(self, session_id: UUID, version: int) -> None:
        """Removes the document of a version that no row refers to, after the job that made it has ended."""
        try:
            await self._objects.delete(version_key(session_id, version))
        except StorageUnavailable:
            log.warning(
                "an unneeded transcript stays until its session is deleted", key=version_key(session_id, version)
            )


@asynccontextmanager
async def open_worker_persistence(
    settings: PersistenceSettings, most_of_tenant: int = DEFAULT_MAX_JOBS
) -> AsyncIterator[WorkerPersistence]:
    """Connects, and holds the lease of this worker until the block ends.

    Raises:
        StorageUnavailable: Postgres or S3 does not answer; the message names it.
    """
    # A server with the same environment has the worker id for itself.
    worker_id = f"{settings.worker_id}.worker"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        objects = await stack.enter_async_context(open_objects(settings))
        await database.check()
        await objects.ensure_bucket()
        lease = Lease(database, worker_id, settings.lease_seconds, settings.lease_renewal_seconds, "worker")
        # The claims of jobs are fenced by themselves: a lease that is missing is written again.
        lease.running = tuple
        await lease.register()
        stack.push_async_callback(_end, lease)
        await stack.enter_async_context(running(lease.run(), "lease"))
        reports = ProcessReports(
            database,
            lease,
            worker_id,
            "worker",
            settings.lease_renewal_seconds,
            lambda: storage_outages(lease, database, objects),
        )
        stack.push_async_callback(reports.remove)
        await stack.enter_async_context(running(reports.run(), "process report"))
        lost_jobs = LostJobs(database, settings.job_retry_seconds)
        await stack.enter_async_context(running(_requeue(lease, lost_jobs, settings.reap_seconds), "lost jobs"))
        notifier = JobNotifier(database)
        await stack.enter_async_context(running(notifier.run(), "job notifier"))
        yield WorkerPersistence(
            worker_id,
            JobClaims(database, worker_id, lease.check, most_of_tenant),
            notifier.due,
            lease.lost,
            reports,
            WaveformStore(objects),
            lost_jobs,
            ChainStore(database),
            objects,
        )


async def _requeue(lease: Lease, lost_jobs: LostJobs, pause_seconds: float) -> None:
    while True:
        await asyncio.sleep(pause_seconds * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
        if not lease.is_established:
            continue
        try:
            for job in await lost_jobs.requeue():
                session_id = format_session_id(job.session_id)
                log.warning("took a job from a dead process", session_id=session_id, has_failed=job.has_failed)
        except StorageUnavailable:
            continue  # the lease reports the outage
        except Exception:
            log.exception("jobs of dead processes cannot be queued again")


async def _end(lease: Lease) -> None:
    try:
        async with asyncio.timeout(2.0):
            await lease.end(has_left_work=False)
    except (StorageUnavailable, TimeoutError):
        log.warning("the lease is left to expire: the database does not answer")
