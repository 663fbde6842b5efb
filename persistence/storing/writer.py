"""One writer per process: it writes the changes of the running sessions to Postgres in one transaction a second."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.exc import IntegrityError

from domain.errors import StorageUnavailable
from domain.tenancy import Caller
from domain.transcript import Utterance
from persistence.errors import LeaseLost
from persistence.outage_report import note_outage
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.rows import SessionRows
from persistence.session_values import Conclusion, Progress, SessionStart
from persistence.storing.restoration import Restoration
from telemetry.logs import get_logger

log = get_logger(__name__)

TICK_SECONDS: Final = 1.0
STATS_SECONDS: Final = 10.0
"""How often the figures of a session are written while there is no speech; a final is written at the next tick."""

_MOST_REFUSED: Final = 10_000
_UTTERANCES_A_STATEMENT: Final = 1_000
# Finals of some hours of an outage; further ones follow from the spool.
_MOST_WAITING: Final = 50_000
_NO_FIGURES: Final[Mapping[UUID, Progress]] = {}

_failures = Counter("dalston_database_write_failures_total", "Writes that failed in Postgres; they are repeated")


@dataclass(slots=True, eq=False)
class _Running:
    start: SessionStart
    progress: Callable[[], Progress]
    has_row: bool
    written_at: float
    written: Progress = field(default_factory=Progress)
    finals: Callable[[], Sequence[Utterance]] = tuple
    """Reads the finals of its spool."""
    has_news: bool = False

    def is_due(self, now: float) -> bool:
        return self.has_news or now - self.written_at >= STATS_SECONDS


class SessionWriter:
    """Writes the rows of the sessions that this process runs."""

    def __init__(self, rows: SessionRows, restoration: Restoration | None = None) -> None:
        self._rows = rows
        self._restoration = restoration or Restoration(rows)
        self._running: dict[UUID, _Running] = {}
        self.failing_since: float | None = None
        """When writes began to fail, on the monotonic clock; None while they succeed."""
        # Sessions whose row may exist although its insert seemed to fail. Bounded: a flood of refused sessions during
        # an outage must not fill the memory, and a row that is dropped here is ended when the spool is recovered.
        self._refused: deque[UUID] = deque(maxlen=_MOST_REFUSED)
        self._finals: deque[NumberedUtterance] = deque()
        self._finals_lock = asyncio.Lock()

    @property
    def session_ids(self) -> list[UUID]:
        """The sessions that it follows."""
        return list(self._running)

    @property
    def known(self) -> list[_Running]:
        """The sessions that it follows and whose rows it has written."""
        return [each for each in self._running.values() if each.has_row]

    def write_again(self, sessions: Iterable[_Running]) -> None:
        """Has all figures of these sessions written at the next tick, whatever was written before."""
        for each in sessions:
            each.written, each.has_news = Progress(), True

    async def begin(
        self,
        start: SessionStart,
        progress: Callable[[], Progress],
        caller: Caller | None = None,
        finals: Callable[[], Sequence[Utterance]] = tuple,
    ) -> None:
        """Creates a session's row and follows its figures from here on.

        `finals` reads the finals that are to be stored, in their order; it may wait for the disk.

        While Postgres is unavailable, a session that stores nothing and continues none begins without its row; the row
        follows. Such a session does not count against the limit of its tenant.

        Raises:
            StorageUnavailable: Postgres is unavailable, and the session stores something, continues another or begins
                with a token.
            TooManySessions, TokenSpent, StorageQuotaExceeded: the caller may not begin it.
            SessionNotFound, SessionResumed: the session that it continues is gone, or another continues it.
        """
        has_row = True
        is_limited = caller is not None and (
            caller.limits.max_sessions is not None
            or caller.limits.max_storage_bytes is not None
            or caller.token_hash is not None
        )
        try:
            if is_limited or start.previous_session_id is not None:
                await self._rows.admit(start, caller)
            else:
                await self._rows.insert([start])
        except StorageUnavailable:
            _failures.inc()
            has_token = caller is not None and caller.token_hash is not None
            if start.stores or start.previous_session_id is not None or has_token:
                self._refused.append(start.id)
                raise
            log.warning("session begins without its row", session_id=start.session_id)
            has_row = False
        except asyncio.CancelledError:
            self._refused.append(start.id)
            raise
        self._running[start.id] = _Running(start, progress, has_row, time.monotonic(), finals=finals)

    def flush_soon(self, session_id: UUID) -> None:
        """Has the figures written at the next tick: a final was recorded, or a caller waits for them."""
        if (running := self._running.get(session_id)) is not None:
            running.has_news = True

    def add_final(self, session_id: UUID, index: int, utterance: Utterance) -> None:
        """Has a final that is to be stored written at the next tick. The first has index 0."""
        if session_id not in self._running:
            return
        if len(self._finals) >= _MOST_WAITING:
            # The spool has it: rows are compared once Postgres is available, or at the end of the session.
            self._restoration.doubt()
            return
        self._finals.append(NumberedUtterance(session_id, index, utterance))

    def refuse(self, session_id: UUID) -> None:
        """Has the row of a session that cannot begin after all ended at the next tick."""
        self._running.pop(session_id, None)
        self._refused.append(session_id)

    def discard_session(self, session_id: UUID) -> None:
        """Stops following a session; calling it again does nothing."""
        self._running.pop(session_id, None)

    async def conclude(self, start: SessionStart, conclusion: Conclusion) -> bool:
        """Ends a session; returns whether it still exists and is not deleted.

        Raises:
            RowLost: Postgres has lost its row: insert it and call again.
            StorageUnavailable: Postgres is unavailable; call again.
        """
        running = self._running.get(start.id)
        if running is not None and not running.has_row:
            await self._insert([start])
        await self._write_finals()
        is_there = await self._rows.conclude(start.id, conclusion)
        self.discard_session(start.id)
        return is_there

    async def run(self) -> None:
        """Writes once a second until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.flush()
            except LeaseLost:
                return
            except Exception as error:
                # Figures that cannot be written must not end their streams. Only the first of consecutive failures is
                # logged.
                _failures.inc()
                if isinstance(error, StorageUnavailable):
                    note_outage(error, "write figures of sessions")
                if self.failing_since is None:
                    log.exception("figures of sessions wait for the database")
                    self.failing_since = time.monotonic()
            else:
                self.failing_since = None

    async def flush(self) -> None:
        """Writes what is due now. A row that is lost, or older than it was, makes a comparison of all rows due.

        Raises:
            StorageUnavailable: Postgres is unavailable; what was due stays due.
        """
        try:
            await self._flush()
        except Exception:
            # It may have been written, and the Postgres that answers next may be a standby that has less.
            self._restoration.doubt()
            raise

    async def _flush(self) -> None:
        await self._insert_missing()
        await self._end_refused()
        now = time.monotonic()
        due = {running: running.progress() for running in self._due(now)}
        changed = {running.start.id: progress for running, progress in due.items() if progress != running.written}
        before = {running: running.written for running in due}
        with_news = [running for running in due if running.has_news]
        for running in with_news:
            running.has_news = False
        try:
            await self._write_finals(changed)
        except Exception:
            for running in with_news:
                running.has_news = True
            raise
        for running, progress in due.items():
            # A comparison that ended meanwhile may have found another Postgres than the one that has taken this.
            if running.written is before[running]:
                running.written, running.written_at = progress, now

    def _due(self, now: float) -> list[_Running]:
        return [running for running in self._running.values() if running.has_row and running.is_due(now)]

    async def _write_finals(self, progress: Mapping[UUID, Progress] = _NO_FIGURES) -> None:
        # One at a time: a caller that finds nothing to write relies on it being written, not being in transfer.
        async with self._finals_lock:
            while self._finals or progress:
                batch = list(islice(self._finals, _UTTERANCES_A_STATEMENT))
                self._compare(progress, batch, await self._rows.write(progress, batch))
                progress = _NO_FIGURES
                for _ in batch:
                    self._finals.popleft()

    def _compare(
        self, progress: Mapping[UUID, Progress], batch: Sequence[NumberedUtterance], before: Mapping[UUID, float]
    ) -> None:
        """Requests a comparison of all rows if one of these is gone, or has less audio than was written."""
        for session_id in {*progress, *(each.session_id for each in batch)}:
            running = self._running.get(session_id)
            if running is None or not running.has_row:
                continue
            if before.get(session_id, -1.0) < running.written.audio_seconds:
                self._restoration.doubt()

    async def _insert_missing(self) -> None:
        missing = [running for running in self._running.values() if not running.has_row]
        if not missing:
            return
        await self._insert([running.start for running in missing])
        for running in missing:
            running.has_row = True

    async def _insert(self, starts: Sequence[SessionStart]) -> None:
        """Inserts the rows of sessions that began while Postgres was unavailable."""
        try:
            await self._rows.insert(starts)
        except IntegrityError:
            # The Postgres that answers has lost a tenant: it is restored with its session.
            await self._rows.restore(starts)

    async def _end_refused(self) -> None:
        refused = list(self._refused)
        if not refused:
            return
        error = "the recording could not be started"
        await self._rows.end_refused(error, datetime.now(UTC), refused)
        ended = set(refused)
        self._refused = deque((each for each in self._refused if each not in ended), maxlen=_MOST_REFUSED)
