"""The entry point of persistence: opened by the server, and used by its interceptors and services."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from dalston.v1.status_pb2 import StorageBacklog

from domain.errors import StorageUnavailable
from domain.job import TranscriptVersion
from persistence.archive import Archive, delete_session, delete_transcript
from persistence.background import running
from persistence.config import PersistenceSettings
from persistence.errors import LeaseLost
from persistence.postgres.api_keys import KeyStore
from persistence.postgres.chains import ChainStore
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.changes import ChangeStore
from persistence.postgres.database import open_database
from persistence.postgres.end_requests import EndRequests
from persistence.postgres.job_claims import LostJobs
from persistence.postgres.jobs import JobStore
from persistence.postgres.key_upkeep import KeyCleanup, KeyUses
from persistence.postgres.lease import Lease
from persistence.postgres.logins import LoginStore
from persistence.postgres.ownership import Ownership
from persistence.postgres.partials import PartialExchange
from persistence.postgres.process_reports import ProcessReports
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.postgres.uploads import UploadRows
from persistence.postgres.utterances import UtteranceStore
from persistence.recording.interceptor import RecordingInterceptor
from persistence.recording.pipeline import Classify, RecordingPipeline
from persistence.recording.spool_maintenance import SpoolMaintenance
from persistence.recovery.reaper import Reaper, SpoolsOf
from persistence.recovery.resumption import Resumptions
from persistence.recovery.spools import Spools
from persistence.s3.objects import ObjectStore, open_objects
from persistence.storage_outages import earliest, storage_outages
from persistence.storing.finisher import Finisher
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.restoration import Restoration
from persistence.storing.row_comparison import RowComparison
from persistence.storing.shipper import Shipper
from persistence.storing.spool_reconciliation import SpoolReconciliation
from persistence.storing.waveforms import WaveformStore
from persistence.storing.writer import SessionWriter
from persistence.transcripts import Transcripts
from persistence.uploading.file_upload import FileUploads
from telemetry.deadline import Deadline
from telemetry.logs import get_logger

log = get_logger(__name__)

# Time of the shutdown deadline that is reserved for later steps: storing the sessions whose recognition was cut short,
# and then ending the lease and closing connections.
_STORE_SECONDS: Final = 6.0
_CLOSE_SECONDS: Final = 2.0

__all__ = ["Archive", "Persistence", "open_persistence"]


@dataclass(frozen=True, slots=True)
class Persistence:
    """The interface of persistence for the server."""

    sessions: SessionStore
    archive: Archive
    waveforms: WaveformStore
    chains: ChainStore
    jobs: JobStore
    transcripts: Transcripts
    utterances: UtteranceStore
    uploads: FileUploads
    _versions: TranscriptVersions
    changes: ChangeStore
    change_notifier: ChangeNotifier
    partials: PartialExchange
    keys: KeyStore
    uses: KeyUses
    logins: LoginStore
    interceptor: RecordingInterceptor
    resumptions: Resumptions
    end_requests: EndRequests
    reports: ProcessReports
    backlog: Callable[[], StorageBacklog]
    """Returns what waits to be stored now."""
    lost: asyncio.Event
    """Set when this process was considered dead: its streams have ended, and it should exit."""
    _objects: ObjectStore
    _lease: Lease

    def report_load(self, is_behind: Callable[[], bool]) -> None:
        """Reports with the lease whether live sessions need all of this machine: workers on it wait meanwhile."""
        self._lease.is_behind = is_behind

    async def delete_session(self, tenant_id: UUID, session_id: UUID) -> None:
        """Deletes a session with its audio and transcript, permanently.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            SessionActive: the session is running.
            StorageUnavailable: Postgres is unavailable; the session may or may not be deleted. Call again.
        """
        await delete_session(self.sessions, self._objects, tenant_id, session_id)

    async def set_current_transcript(self, tenant_id: UUID, session_id: UUID, version: int) -> TranscriptVersion:
        """Makes a stored version of a transcript the current one; returns it.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            TranscriptNotFound: the session has no such version.
            StorageUnavailable: Postgres is unavailable.
        """
        return await self._versions.set_current(tenant_id, session_id, version)

    async def delete_transcript(self, tenant_id: UUID, session_id: UUID, version: int) -> None:
        """Deletes a version of a transcript, permanently.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            TranscriptNotFound: the session has no such version.
            InvalidFilter: it is version 1, which is deleted with its session.
            StorageUnavailable: Postgres is unavailable; the version may or may not be deleted. Call again.
        """
        await delete_transcript(self._versions, self._objects, tenant_id, session_id, version)


@asynccontextmanager
async def open_persistence(
    settings: PersistenceSettings, classify: Classify, deadline: Deadline
) -> AsyncIterator[Persistence]:
    """Connects, takes over the spools of dead processes, and stores sessions until the block ends.

    Stop the gRPC server before the block ends, and keep recognition running until after it: audio received before a
    disconnect may still be transcribed. Begin the deadline before, too: sessions that are not stored within it stay in
    the spool for the next start.

    Raises:
        StorageUnavailable: Postgres, S3 or the spool's disk does not answer; the message names it.
        SpoolInUse: another process uses the spool of this worker id, and does not release it.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        objects = await stack.enter_async_context(open_objects(settings))
        await database.check()
        await objects.ensure_bucket()
        lease = Lease(database, settings.worker_id, settings.lease_seconds, settings.lease_renewal_seconds)
        rows = SessionRows(database, settings.worker_id, lease.check)
        ownership = Ownership(database, settings.worker_id, lease.check)
        shipper = Shipper(objects, rows, flush_seconds=settings.flush_seconds, check=lease.check)
        restoration = Restoration(rows, shipper.rewrite_parts)
        writer = SessionWriter(rows, restoration)
        finisher = Finisher(writer, rows, shipper, SpoolReconciliation(objects, rows, ownership), restoration)
        lease.doubted = restoration.doubt
        lease.running, lease.ended = lambda: writer.session_ids, lambda: finisher.session_ids
        row_comparison = RowComparison(writer, restoration)
        maintenance = SpoolMaintenance(
            settings.fsync_seconds, lambda: _earlier(writer.failing_since, row_comparison.failing_since)
        )
        spools = await Spools.open(settings, finisher, ownership)
        stack.callback(spools.release)
        await lease.register()
        objects.check = lease.check
        stack.push_async_callback(_end, lease, finisher, deadline)
        await stack.enter_async_context(running(lease.run(), "lease"))
        reports = ProcessReports(
            database,
            lease,
            settings.worker_id,
            "server",
            settings.lease_renewal_seconds,
            lambda: earliest(_times_of(maintenance.degraded_since), storage_outages(lease, database, objects)),
        )
        stack.push_async_callback(reports.remove)
        await stack.enter_async_context(running(reports.run(), "process report"))
        stack.push_async_callback(shipper.close)
        await stack.enter_async_context(running(shipper.run(), "part batcher"))
        stack.push_async_callback(_close, finisher.close, deadline, _CLOSE_SECONDS)
        await spools.recover()
        partials = PartialExchange(database)
        interceptor = RecordingInterceptor(
            RecordingPipeline(
                spools.own,
                writer,
                shipper,
                finisher,
                maintenance,
                worker_id=settings.worker_id,
                spool_wait_seconds=settings.spool_wait_seconds,
                partials=partials,
            ),
            classify,
            store_wait_seconds=settings.store_wait_seconds,
            vanished_grace_seconds=settings.vanished_grace_seconds,
        )
        stack.push_async_callback(_close, interceptor.close, deadline, _STORE_SECONDS)
        await stack.enter_async_context(running(writer.run(), "session writer"))
        await stack.enter_async_context(running(row_comparison.run(), "comparison of rows"))
        await stack.enter_async_context(running(maintenance.run(), "spool maintenance"))
        lost_jobs = LostJobs(database, settings.job_retry_seconds)
        chains, versions, utterances = ChainStore(database), TranscriptVersions(database), UtteranceStore(database)
        reaper = _reaper(
            settings, lease, ownership, RemoteRecovery(objects, rows), objects, versions, spools.take, lost_jobs
        )
        await stack.enter_async_context(running(reaper.run(), "reaper"))
        await stack.enter_async_context(running(_end_streams_when_lost(lease, interceptor), "lease watch"))
        keys = KeyStore(database)
        uses = KeyUses(keys)
        stack.push_async_callback(uses.flush)
        await stack.enter_async_context(running(uses.run(), "key uses"))
        await stack.enter_async_context(running(KeyCleanup(keys).run(), "key cleanup"))
        changes, change_notifier = ChangeStore(database), ChangeNotifier(database, partials.channels)
        await stack.enter_async_context(running(changes.run(), "change cleanup"))
        await stack.enter_async_context(running(change_notifier.run(), "change notifier"))
        await stack.enter_async_context(running(partials.run(), "partials for watches"))
        resumptions = Resumptions(
            database, objects, rows, interceptor.call_of, wait_seconds=settings.resume_wait_seconds
        )
        yield Persistence(
            SessionStore(database),
            Archive(objects),
            WaveformStore(objects),
            chains,
            JobStore(database),
            Transcripts(chains, versions, utterances),
            utterances,
            FileUploads(objects, UploadRows(database, settings.worker_id, lease.check, rows.usage), rows),
            versions,
            changes,
            change_notifier,
            partials,
            keys,
            uses,
            LoginStore(database),
            interceptor,
            resumptions,
            EndRequests(database),
            reports,
            lambda: _backlog(settings, spools, finisher, maintenance),
            lease.lost,
            objects,
            lease,
        )


def _backlog(
    settings: PersistenceSettings, spools: Spools, finisher: Finisher, maintenance: SpoolMaintenance
) -> StorageBacklog:
    return StorageBacklog(
        sessions=finisher.unfinished,
        degraded_sessions=maintenance.degraded,
        spool_bytes=spools.own.budget.used_bytes,
        max_spool_bytes=settings.spool_bytes,
    )


def _times_of(monotonic: Mapping[str, float]) -> dict[str, datetime]:
    now = time.monotonic()
    return {name: datetime.now(UTC) - timedelta(seconds=now - began) for name, began in monotonic.items()}


def _earlier(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)


def _reaper(
    settings: PersistenceSettings,
    lease: Lease,
    ownership: Ownership,
    remote_recovery: RemoteRecovery,
    objects: ObjectStore,
    versions: TranscriptVersions,
    spools_of: SpoolsOf,
    lost_jobs: LostJobs,
) -> Reaper:
    return Reaper(
        lease,
        ownership,
        remote_recovery,
        objects,
        versions,
        spools_of,
        lost_jobs,
        pause_seconds=settings.reap_seconds,
        grace_seconds=settings.recovery_grace_seconds,
        delete_age_seconds=settings.delete_age_seconds,
        orphan_age_seconds=settings.orphan_age_seconds,
        sweep_seconds=settings.sweep_seconds,
        lost_lease_wait_seconds=settings.lease_seconds,
    )


async def _end_streams_when_lost(lease: Lease, interceptor: RecordingInterceptor) -> None:
    await lease.lost.wait()
    interceptor.cut(LeaseLost())


async def _close(close: Callable[[float], Awaitable[None]], deadline: Deadline, kept_seconds: float) -> None:
    # The remaining time is known only when this step runs.
    await close(deadline.left(kept_seconds))


async def _end(lease: Lease, finisher: Finisher, deadline: Deadline) -> None:
    try:
        async with asyncio.timeout(deadline.left(_CLOSE_SECONDS / 2)):
            await lease.end(has_left_work=finisher.has_left_work)
    except (StorageUnavailable, TimeoutError):
        log.warning("the lease is left to expire: the database does not answer")
