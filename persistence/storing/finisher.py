"""Takes ended sessions to their final state: first the row, then the objects, then their URIs in the row.

Every step may be repeated, and is, with a growing pause, until it succeeds or the process stops; a session that is
unfinished then is in the spool, and the next start finishes it. Objects and spool of a session are deleted only on
evidence of its deletion. A row that is merely gone was lost by Postgres: it is inserted again, and all steps are
repeated.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar
from uuid import UUID

from prometheus_client import Counter, Gauge

from domain.errors import StorageUnavailable
from persistence.backoff import Backoff
from persistence.errors import DiskUnavailable, LeaseLost, NotOwner, RowLost
from persistence.outage_report import note_outage
from persistence.postgres.rows import SessionRows
from persistence.session_values import Conclusion, SessionStart, StoredObjects
from persistence.spool.budget import FULL
from persistence.spool.session_spool import SessionSpool
from persistence.storing.restoration import Ended, Restoration
from persistence.storing.shipper import Shipped, Shipper
from persistence.storing.spool_reconciliation import SpoolReconciliation, SpoolStatus
from persistence.storing.writer import SessionWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_CONCURRENT_RECOVERIES: Final = 4
_RECOVERY_TURN_SECONDS: Final = 30.0

_ended = Counter("dalston_sessions_ended_total", "Sessions whose final status is in their row", ["status"])
_failed = Counter("dalston_store_failures_total", "Attempts to store a session that failed and are repeated", ["step"])
_waiting = Gauge("dalston_sessions_storing", "Ended sessions that are not stored to their end yet")
_deferred = Gauge("dalston_spools_waiting", "Spools whose session another server is ending; they are tried again")


class Finishing:
    """An ended session that is being finished."""

    def __init__(self) -> None:
        self.stored = StoredObjects()
        """The URIs of the objects that exist."""
        self._row_written = asyncio.Event()
        self._answered = asyncio.Event()

    @property
    def is_row_settled(self) -> bool:
        """Whether the final status is in the row, or was before Postgres lost it."""
        return self._row_written.is_set()

    def row_settled(self) -> None:
        """Notes that the final status is in the row."""
        self._row_written.set()

    def answered(self) -> None:
        """Notes that it is finished, or that a first attempt failed and it continues in the background."""
        self._row_written.set()
        self._answered.set()

    async def wait(self, seconds: float) -> None:
        """Waits until it is finished, a step has failed once, or the time is over."""
        await _wait(self._answered, seconds)

    async def wait_for_row(self, seconds: float) -> None:
        """Waits until the final status is in the row, writing it has failed once, or the time is over."""
        await _wait(self._row_written, seconds)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


class Finisher:
    """Owns the tasks that finish sessions."""

    def __init__(
        self,
        writer: SessionWriter,
        rows: SessionRows,
        shipper: Shipper,
        reconciliation: SpoolReconciliation,
        restoration: Restoration | None = None,
    ) -> None:
        self._writer = writer
        self._rows = rows
        self._shipper = shipper
        self._reconciliation = reconciliation
        self._restoration = restoration or Restoration(rows)
        self._own: set[UUID] = set()
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unfinished = 0

    @property
    def session_ids(self) -> list[UUID]:
        """The sessions that this process is finishing: not those that another process ends and whose spool waits."""
        return list(self._own)

    @property
    def has_left_work(self) -> bool:
        """Whether a session is left for the next start."""
        return self._unfinished > 0

    @property
    def unfinished(self) -> int:
        """Ended sessions that are not stored to their end yet."""
        return self._unfinished

    def finish(self, start: SessionStart, conclusion: Conclusion, spool: SessionSpool | None) -> Finishing:
        """Begins to finish an ended session, in a task of its own that survives the cancellation of the caller."""
        return self._begin(start, lambda finishing: self._finish(finishing, start, conclusion, spool))

    def take_over(self, spools: Sequence[SessionSpool], conclude: Callable[[SessionSpool], Conclusion]) -> None:
        """Begins to finish sessions of earlier processes, a few at a time: those that run now come first.

        Args:
            conclude: returns how such a session ended; may wait for the disk.
        """
        if spools:
            self._unfinished += len(spools)
            task = asyncio.create_task(self._take_over(spools, conclude), name="recovery of spooled sessions")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self, grace_seconds: float) -> None:
        """Waits for the sessions in progress, then leaves the rest to the next start."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + grace_seconds
        self._closing.set()
        while self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=max(0.0, deadline - clock()))
            if late:
                log.warning("sessions are left in the spool for the next start", count=self._unfinished)
                for task in late:
                    task.cancel()
                await asyncio.wait(late)

    def _begin(self, start: SessionStart, work: Callable[[Finishing], Awaitable[bool]]) -> Finishing:
        finishing = Finishing()
        task = asyncio.create_task(self._run(finishing, start, work), name=f"finish {start.session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return finishing

    async def _take_over(self, spools: Sequence[SessionSpool], conclude: Callable[[SessionSpool], Conclusion]) -> None:
        slots = asyncio.Semaphore(_CONCURRENT_RECOVERIES)

        async def finish(spool: SessionSpool) -> None:
            async with slots:
                try:
                    conclusion = await asyncio.to_thread(conclude, spool)
                except OSError:
                    log.exception("session cannot be read", session_id=spool.manifest.start.session_id)
                    return
                # Counted by its own task from here on.
                self._unfinished -= 1
                work = functools.partial(self._finish_left, conclusion, spool)
                await self._begin(spool.manifest.start, work).wait(_RECOVERY_TURN_SECONDS)

        async with asyncio.TaskGroup() as group:
            for spool in spools:
                group.create_task(finish(spool))

    async def _run(
        self, finishing: Finishing, start: SessionStart, work: Callable[[Finishing], Awaitable[bool]]
    ) -> None:
        with _waiting.track_inprogress():
            self._unfinished += 1
            try:
                if await work(finishing):
                    self._unfinished -= 1
            except LeaseLost:
                log.warning("session is left to other servers", session_id=start.session_id)
            except NotOwner:
                # Its spool stays: the next start adds what it has to what the other server has stored.
                _failed.labels("owner").inc()
                log.warning("session was taken over by another server", session_id=start.session_id)
            except Exception:
                # A bug that concerns one session: it stays in the spool, the others continue.
                log.exception("session cannot be finished", session_id=start.session_id)
                _failed.labels("unexpected").inc()
            finally:
                self._writer.discard_session(start.id)
                self._shipper.discard_session(start.id)
                finishing.answered()

    async def _finish_left(self, conclusion: Conclusion, spool: SessionSpool, finishing: Finishing) -> bool:
        """Finishes a session that an earlier process left; returns whether its spool is deleted.

        While another server is ending the session, its status is read again, for as long as that takes.
        """
        start, backoff = spool.manifest.start, Backoff()
        settle = functools.partial(self._reconciliation.settle, spool, conclusion.progress)
        while True:
            try:
                status = await self._repeat("reconciliation", finishing, settle)
                if status is SpoolStatus.OURS:
                    return await self._finish(finishing, start, conclusion, spool)
            except RowLost:
                # The next look inserts it again, unless it was deleted.
                status = SpoolStatus.WAITS
            except NotOwner:
                # Its upload may have changed by the next attempt: another process owns it.
                self._shipper.discard_session(start.id)
                status = SpoolStatus.WAITS
            if status is SpoolStatus.GONE:
                await self._discard(finishing, start)
            if status in (SpoolStatus.GONE, SpoolStatus.STORED):
                await asyncio.to_thread(spool.delete)
                return True
            if status in (SpoolStatus.APART, SpoolStatus.UNKNOWN):
                return False
            log.info("a spool waits: another server is ending its session", session_id=start.session_id)
            finishing.answered()
            with _deferred.track_inprogress():
                await _wait(self._closing, backoff.next())
            if self._closing.is_set():
                return False

    async def _finish(
        self, finishing: Finishing, start: SessionStart, conclusion: Conclusion, spool: SessionSpool | None
    ) -> bool:
        self._own.add(start.id)
        try:
            if spool is not None:
                await self._repeat("spool", finishing, lambda: _conclude_spool(spool, conclusion))
            while True:
                try:
                    return await self._finish_once(finishing, start, conclusion, spool)
                except RowLost:
                    self._restoration.doubt()
                    await self._repeat("row", finishing, lambda: self._rows.restore([start]))
        finally:
            self._own.discard(start.id)

    async def _finish_once(
        self, finishing: Finishing, start: SessionStart, conclusion: Conclusion, spool: SessionSpool | None
    ) -> bool:
        is_there = await self._repeat("row", finishing, lambda: self._writer.conclude(start, conclusion))
        if is_there and not finishing.is_row_settled:
            _ended.labels(conclusion.end_reason.status).inc()
        finishing.row_settled()
        shipped = Shipped()
        if spool is not None:
            if is_there:
                shipped = await self._repeat("objects", finishing, lambda: self._shipper.ship(spool))
                ended = _ended_as(start, conclusion, shipped)
                is_there = await self._note(finishing, ended, spool, has_tails=shipped.has_tails)
            if not is_there:
                await self._discard(finishing, start)
            await asyncio.to_thread(spool.delete)
        elif is_there:
            self._restoration.remember(_ended_as(start, conclusion, shipped))
        return True

    async def _discard(self, finishing: Finishing, start: SessionStart) -> None:
        # Deleted meanwhile: there is a tombstone. Objects that the deletion did not find are deleted here: one of the
        # two comes last.
        await self._repeat("delete", finishing, lambda: self._shipper.delete_objects(start.id))
        await self._repeat("delete", finishing, lambda: self._rows.delete_row(start.id))

    async def _note(self, finishing: Finishing, ended: Ended, spool: SessionSpool, *, has_tails: bool) -> bool:
        """Writes the URIs of the objects to the row, and cleans up; returns whether the session still exists."""
        session_id = ended.start.id
        is_there = await self._repeat(
            "row",
            finishing,
            lambda: self._rows.set_stored(
                session_id,
                ended.objects,
                has_tails=has_tails,
                audio_seconds=ended.audio_seconds,
                stored_bytes=ended.audio_bytes,
                utterances=ended.utterances,
                language=ended.language,
            ),
        )
        if is_there:
            # Before any other step: from here on a failover may revert the row to its earlier state.
            self._restoration.remember(ended)
            finishing.stored = ended.objects
            finishing.answered()
            await self._repeat("tails", finishing, lambda: self._shipper.clean(spool))
            # Before the row: a restoration that ends the session again meanwhile sees it, or writes before this does.
            ended.is_clean = True
            if has_tails:
                await self._repeat("row", finishing, lambda: self._rows.mark_tails_deleted(session_id))
        return is_there

    async def _repeat(self, step: str, finishing: Finishing, action: Callable[[], Awaitable[T]]) -> T:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await action()
            except RowLost:
                raise
            except StorageUnavailable as error:
                # The Postgres that answers next may be a standby that has less.
                self._restoration.doubt()
                _failed.labels(step).inc()
                note_outage(error, f"store a session: {step}")
                log.warning("storing a session waits", step=step, component=error.component, reason=str(error))
                finishing.answered()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _conclude_spool(spool: SessionSpool, conclusion: Conclusion) -> None:
    try:
        await asyncio.to_thread(spool.conclude, conclusion)
    except OSError as error:
        if error.errno not in FULL:
            raise DiskUnavailable("the spool cannot be written") from error
        # Storing the session is what makes room. Its row has the end reason.
        log.warning("the spool is full: the end reason of a session is in its row only")


def _ended_as(start: SessionStart, conclusion: Conclusion, shipped: Shipped) -> Ended:
    return Ended(
        start,
        conclusion,
        shipped.objects,
        shipped.audio_seconds,
        shipped.audio_bytes,
        shipped.utterances,
        shipped.language,
    )
