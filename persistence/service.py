"""Persistence as one thing: opened by the server, used by its interceptor chain and its session service."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from persistence.archive import Archive, StoredObject, delete_session
from persistence.budget import SpoolBudget
from persistence.config import PersistenceSettings
from persistence.database import open_database
from persistence.errors import StorageUnavailable
from persistence.finisher import Finisher
from persistence.objects import ObjectStore, open_objects
from persistence.ownership import Ownership
from persistence.recording import RecordingInterceptor
from persistence.recordings import Classify, Recordings
from persistence.recovery import recover
from persistence.rows import SessionRows
from persistence.sessions import SessionStore
from persistence.shipper import Shipper
from persistence.spool_home import SpoolHome
from persistence.upkeep import Upkeep
from persistence.writer import SessionWriter

__all__ = ["Archive", "Persistence", "StoredObject", "open_persistence"]


@dataclass(frozen=True, slots=True)
class Persistence:
    """What the rest of the server sees of it."""

    sessions: SessionStore
    archive: Archive
    interceptor: RecordingInterceptor
    _objects: ObjectStore

    async def delete(self, tenant_id: UUID, session_id: str) -> None:
        """Removes a session with its audio and transcript, for good.

        Raises:
            InvalidSessionId, SessionNotFound, SessionActive: as their names say.
            StorageUnavailable: Postgres or S3 does not do its part; try again.
        """
        await delete_session(self.sessions, self._objects, tenant_id, session_id)


@asynccontextmanager
async def open_persistence(settings: PersistenceSettings, classify: Classify) -> AsyncIterator[Persistence]:
    """Connects, takes over what processes that are gone left in the spool, and writes until the block ends.

    Stop the gRPC server before the block ends, and keep recognition running until after it: the audio of clients that
    vanished may still be transcribed.

    Raises:
        StorageUnavailable: Postgres, S3 or the spool's disk does not answer; the message says which.
        SpoolInUse: another process has the same worker id.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        objects = await stack.enter_async_context(open_objects(settings))
        await database.check()
        await objects.ensure_bucket()
        rows = SessionRows(database, settings.worker_id)
        writer = SessionWriter(rows)
        shipper = Shipper(objects, rows, flush_seconds=settings.flush_seconds)
        finisher = Finisher(writer, rows, shipper)
        upkeep = Upkeep(settings.fsync_seconds, lambda: writer.failing_since)
        home = await _open_home(settings)
        abandoned: list[SpoolHome] = []
        stack.callback(_release, home, abandoned, finisher)
        stack.push_async_callback(shipper.close)
        await stack.enter_async_context(_running(shipper.run(), "part ledger"))
        stack.push_async_callback(finisher.close, settings.close_grace_seconds)
        await _recover(settings, home, abandoned, finisher, Ownership(database, settings.worker_id))
        interceptor = RecordingInterceptor(
            Recordings(
                home,
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
        stack.push_async_callback(interceptor.close, settings.close_grace_seconds)
        await stack.enter_async_context(_running(writer.run(), "session writer"))
        await stack.enter_async_context(_running(upkeep.run(), "spool upkeep"))
        yield Persistence(SessionStore(database), Archive(objects), interceptor, objects)


@asynccontextmanager
async def _running(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _open_home(settings: PersistenceSettings) -> SpoolHome:
    try:
        budget = SpoolBudget(settings.spool_bytes)
        return await asyncio.to_thread(SpoolHome.open, settings.spool_dir, settings.worker_id, budget)
    except OSError as error:
        raise StorageUnavailable(f"the spool in {settings.spool_dir} cannot be used: {error.strerror}") from error


async def _recover(
    settings: PersistenceSettings, home: SpoolHome, abandoned: list[SpoolHome], finisher: Finisher, ownership: Ownership
) -> None:
    try:
        abandoned.extend(await asyncio.to_thread(list, SpoolHome.take_over(settings.spool_dir, home.budget)))
        await recover((home, *abandoned), finisher, ownership)
    except OSError as error:
        raise StorageUnavailable("the spool cannot be read") from error


def _release(home: SpoolHome, abandoned: list[SpoolHome], finisher: Finisher) -> None:
    # A session left unfinished, spooled or not, needs its directory: by its name the worker's rows are ended.
    for each in (home, *abandoned):
        each.release(remove=not finisher.has_left_work)
