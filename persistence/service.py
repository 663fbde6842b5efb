"""Persistence as one thing: opened by the server, used by its interceptor chain and its session service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from domain.errors import StorageUnavailable
from persistence.archive import Archive, delete_session
from persistence.config import PersistenceSettings
from persistence.errors import LeaseLost
from persistence.postgres.api_keys import KeyStore, KeySweep, KeyUses
from persistence.postgres.chains import ChainStore
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.changes import ChangeStore
from persistence.postgres.database import open_database
from persistence.postgres.end_requests import EndRequests
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.postgres.utterances import UtteranceStore
from persistence.recording.interceptor import RecordingInterceptor
from persistence.recording.recordings import Classify, Recordings
from persistence.recording.upkeep import Upkeep
from persistence.recovery.reaper import Reaper, SpoolsOf
from persistence.recovery.resumption import Resumptions
from persistence.recovery.spools import Spools
from persistence.s3.objects import ObjectStore, open_objects
from persistence.storing.finisher import Finisher
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.restoration import Restoration
from persistence.storing.row_comparison import RowComparison
from persistence.storing.shipper import Shipper
from persistence.storing.spool_reconciliation import SpoolReconciliation
from persistence.storing.writer import SessionWriter
from telemetry.deadline import Deadline
from telemetry.logs import get_logger

log = get_logger(__name__)

# What later steps of closing keep of the deadline: sessions to be stored whose recognition was cut short, and then the
# lease to be given back and connections to be closed.
_STORE_SECONDS: Final = 6.0
_CLOSE_SECONDS: Final = 2.0

__all__ = ["Archive", "Persistence", "open_persistence"]


@dataclass(frozen=True, slots=True)
class Persistence:
    """What the rest of the server sees of it."""

    sessions: SessionStore
    archive: Archive
    chains: ChainStore
    utterances: UtteranceStore
    changes: ChangeStore
    change_notifier: ChangeNotifier
    keys: KeyStore
    uses: KeyUses
    interceptor: RecordingInterceptor
    resumptions: Resumptions
    end_requests: EndRequests
    lost: asyncio.Event
    """Set when this process was taken for dead: its streams have been ended, and it should end, too."""
    _objects: ObjectStore

    async def delete(self, tenant_id: UUID, session_id: str) -> None:
        """Removes a session with its audio and transcript, for good.

        Raises:
            InvalidSessionId, SessionNotFound, SessionActive: as their names say.
            StorageUnavailable: Postgres is away; the session may be deleted or not. Try again.
        """
        await delete_session(self.sessions, self._objects, tenant_id, session_id)


@asynccontextmanager
async def open_persistence(
    settings: PersistenceSettings, classify: Classify, deadline: Deadline
) -> AsyncIterator[Persistence]:
    """Connects, takes over what processes that are gone left in the spool, and writes until the block ends.

    Stop the gRPC server before the block ends, and keep recognition running until after it: the audio of clients that
    vanished may still be transcribed. Begin the deadline before, too: what is not stored by then stays in the spool for
    the next start.

    Raises:
        StorageUnavailable: Postgres, S3 or the spool's disk does not answer; the message says which.
        SpoolInUse: another process has the spool of this worker id, and keeps it.
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
        upkeep = Upkeep(settings.fsync_seconds, lambda: _earlier(writer.failing_since, row_comparison.failing_since))
        spools = await Spools.open(settings, finisher, ownership)
        stack.callback(spools.release)
        await lease.register()
        objects.check = lease.check
        stack.push_async_callback(_end, lease, finisher, deadline)
        await stack.enter_async_context(_running(lease.run(), "lease"))
        stack.push_async_callback(shipper.close)
        await stack.enter_async_context(_running(shipper.run(), "part ledger"))
        stack.push_async_callback(_close, finisher.close, deadline, _CLOSE_SECONDS)
        await spools.recover()
        interceptor = RecordingInterceptor(
            Recordings(
                spools.own,
                writer,
                shipper,
                finisher,
                upkeep,
                worker_id=settings.worker_id,
                spool_wait_seconds=settings.spool_wait_seconds,
            ),
            classify,
            store_wait_seconds=settings.store_wait_seconds,
            vanished_grace_seconds=settings.vanished_grace_seconds,
        )
        stack.push_async_callback(_close, interceptor.close, deadline, _STORE_SECONDS)
        await stack.enter_async_context(_running(writer.run(), "session writer"))
        await stack.enter_async_context(_running(row_comparison.run(), "look for lost rows"))
        await stack.enter_async_context(_running(upkeep.run(), "spool upkeep"))
        reaper = _reaper(settings, lease, ownership, RemoteRecovery(objects, rows), objects, spools.take)
        await stack.enter_async_context(_running(reaper.run(), "reaper"))
        await stack.enter_async_context(_running(_cut_when_lost(lease, interceptor), "watch of the lease"))
        keys = KeyStore(database)
        uses = KeyUses(keys)
        stack.push_async_callback(uses.flush)
        await stack.enter_async_context(_running(uses.run(), "uses of keys"))
        await stack.enter_async_context(_running(KeySweep(keys).run(), "sweep of keys"))
        changes, change_notifier = ChangeStore(database), ChangeNotifier(database)
        await stack.enter_async_context(_running(changes.run(), "purge of changes"))
        await stack.enter_async_context(_running(change_notifier.run(), "bell of changes"))
        resumptions = Resumptions(
            database, objects, rows, interceptor.call_of, wait_seconds=settings.resume_wait_seconds
        )
        yield Persistence(
            SessionStore(database),
            Archive(objects),
            ChainStore(database),
            UtteranceStore(database),
            changes,
            change_notifier,
            keys,
            uses,
            interceptor,
            resumptions,
            EndRequests(database),
            lease.lost,
            objects,
        )


@asynccontextmanager
async def _running(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell_death)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _earlier(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)


def _tell_death(task: asyncio.Task[None]) -> None:
    """Nobody waits for what runs beside everything else: that it has failed is told when it has."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the recorder has died", task=task.get_name(), exc_info=error)


def _reaper(
    settings: PersistenceSettings,
    lease: Lease,
    ownership: Ownership,
    remote_recovery: RemoteRecovery,
    objects: ObjectStore,
    spools_of: SpoolsOf,
) -> Reaper:
    return Reaper(
        lease,
        ownership,
        remote_recovery,
        objects,
        spools_of,
        pause_seconds=settings.reap_seconds,
        grace_seconds=settings.recovery_grace_seconds,
        delete_age_seconds=settings.delete_age_seconds,
        orphan_age_seconds=settings.orphan_age_seconds,
        sweep_seconds=settings.sweep_seconds,
        lost_lease_wait_seconds=settings.lease_seconds,
    )


async def _cut_when_lost(lease: Lease, interceptor: RecordingInterceptor) -> None:
    await lease.lost.wait()
    interceptor.cut(LeaseLost())


async def _close(close: Callable[[float], Awaitable[None]], deadline: Deadline, kept_seconds: float) -> None:
    # How much is left is known when it is this step's turn.
    await close(deadline.left(kept_seconds))


async def _end(lease: Lease, finisher: Finisher, deadline: Deadline) -> None:
    try:
        async with asyncio.timeout(deadline.left(_CLOSE_SECONDS / 2)):
            await lease.end(has_left_work=finisher.has_left_work)
    except (StorageUnavailable, TimeoutError):
        log.warning("the lease is left to run out: the database does not answer")
