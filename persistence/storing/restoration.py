"""Finds rows and finals that Postgres has lost although it had confirmed them, and writes them again.

A comparison is requested when a write failed, when a row is not as this process left it, or when a lease shows that
another Postgres answers. Then each session that runs in this process, and each that ended in it in the last minutes, is
compared with its rows.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from prometheus_client import Gauge

from domain.transcript import Utterance
from persistence.errors import NotOwner, RowLost
from persistence.postgres.finals import numbered
from persistence.postgres.lost_rows import RowState
from persistence.postgres.rows import SessionRows
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects
from telemetry.logs import get_logger

log = get_logger(__name__)

REMEMBERED_SECONDS: Final = 600.0
"""How far a standby may lag behind its primary for this process to restore what a failover loses."""
MOST_REMEMBERED: Final = 10_000
"""Ended sessions that are remembered; another one replaces the earliest."""
MOST_REMEMBERED_BYTES: Final = 64 * 1024 * 1024
"""Memory that they may take, their finals included, as `Ended.memory_bytes` estimates it."""
# The memory of CPython for them, rounded up, without their texts.
_SESSION_BYTES: Final = 2_500
_FINAL_BYTES: Final = 352
_WORD_BYTES: Final = 240
_ENDED_AT_ONCE: Final = 100
"""Sessions whose end is written again in one comparison: that takes about a second."""

_remembered_bytes = Gauge(
    "dalston_remembered_sessions_bytes", "Estimated memory of the sessions that ended in the last minutes"
)


class Running(Protocol):
    """A session that this process runs and whose row it has written."""

    @property
    def start(self) -> SessionStart: ...

    @property
    def progress(self) -> Callable[[], Progress]: ...

    @property
    def finals(self) -> Callable[[], Sequence[Utterance]]: ...


@dataclass(slots=True)
class Ended:
    """A session that ended in this process and is stored, in the state that was written to its row."""

    start: SessionStart
    conclusion: Conclusion
    objects: StoredObjects
    audio_seconds: float | None
    audio_bytes: int | None
    utterances: Sequence[Utterance] | None
    language: str | None
    is_clean: bool = False
    """Whether its tail objects are deleted; its row states so, or is about to."""

    def memory_bytes(self) -> int:
        """The memory that it takes; the estimate is rather too high."""
        return _SESSION_BYTES + sum(
            _FINAL_BYTES + 4 * len(each.text) + sum(_WORD_BYTES + 4 * len(word.word) for word in each.words)
            for each in self.utterances or ()
        )


class Restoration:
    """One for a process."""

    def __init__(self, rows: SessionRows, rewrite_parts: Callable[[], None] = lambda: None) -> None:
        """`rewrite_parts` has the parts of all running sessions written to Postgres again."""
        self._rows = rows
        self._rewrite_parts = rewrite_parts
        self._ended: deque[tuple[float, int, Ended]] = deque()
        self._bytes = 0
        self._is_doubted = False
        self._is_looking = False

    @property
    def is_due(self) -> bool:
        """Whether a comparison is due or in progress: until it has ended, no row is known to exist."""
        return self._is_doubted or self._is_looking

    def doubt(self) -> None:
        """Requests a comparison: Postgres may have lost rows."""
        self._is_doubted = True

    def remember(self, ended: Ended) -> None:
        """Remembers a session that has ended and is stored: its spool is about to be deleted."""
        now = time.monotonic()
        size = ended.memory_bytes()
        self._ended.append((now, size, ended))
        self._bytes += size
        while len(self._ended) > MOST_REMEMBERED or self._bytes > MOST_REMEMBERED_BYTES:
            self._discard_earliest()
        self._discard_old(now)

    def _discard_old(self, now: float) -> None:
        while self._ended and now - self._ended[0][0] > REMEMBERED_SECONDS:
            self._discard_earliest()
        _remembered_bytes.set(self._bytes)

    def _discard_earliest(self) -> None:
        _, size, _ = self._ended.popleft()
        self._bytes -= size

    async def look(self, running: Iterable[Running]) -> None:
        """Compares what was written with the rows, and writes what is missing.

        If the ends of many sessions are missing, some are left to the next comparison, which is due then: no other row
        is written meanwhile.

        Raises:
            StorageUnavailable: Postgres is unavailable; the comparison stays due.
            LeaseLost: this process may not write.
        """
        # A request from here on stays, whatever this finds: it may concern another Postgres than the one that answers.
        self._is_doubted, self._is_looking = False, True
        try:
            await self._look(running)
        except BaseException:
            self._is_doubted = True
            raise
        finally:
            self._is_looking = False

    async def _look(self, running: Iterable[Running]) -> None:
        self._discard_old(time.monotonic())
        by_id = {each.start.id: each for each in running}
        ended = {each.start.id: each for *_, each in self._ended}
        kept = {each.id: each for each in await self._rows.row_states([*by_id, *ended])} if by_id or ended else {}
        # Together, because one may continue another.
        starts = [each.start for each in by_id.values()] + [each.start for each in ended.values()]
        missing = [start for start in starts if kept[start.id].is_missing]
        restored = await self._rows.restore(missing) if missing else frozenset()
        for session_id, session in by_id.items():
            await self._write_finals(session, kept[session_id], is_new=session_id in restored)
        unended = 0
        for session_id, each in ended.items():
            was_left = kept[session_id].is_own and kept[session_id].is_unstored
            if session_id in restored or was_left:
                unended += 1
                if unended > _ENDED_AT_ONCE:
                    self._is_doubted = True
                    break
                await self._end_again(each)
            elif kept[session_id].is_own and kept[session_id].has_tails and each.is_clean:
                with suppress(NotOwner, RowLost):
                    await self._rows.mark_tails_deleted(session_id)
        self._rewrite_parts()

    async def _write_finals(self, session: Running, kept: RowState, *, is_new: bool) -> None:
        if not is_new and not kept.is_own:
            return
        if kept.utterances >= session.progress().utterances:
            # While S3 is unavailable a comparison is due every second: the spool is not read for each.
            return
        finals = await asyncio.to_thread(session.finals)
        if kept.utterances < len(finals):
            await _write_all(self._rows, session.start.id, finals)

    async def _end_again(self, ended: Ended) -> None:
        """Ends a session again whose row was reverted to its state before the end, or was inserted again."""
        session_id = ended.start.id
        try:
            if not await self._rows.conclude(session_id, ended.conclusion):
                return
            if ended.start.stores:
                await _write_all(self._rows, session_id, ended.utterances or ())
                has_tails = not ended.is_clean
                await self._rows.set_stored(
                    session_id,
                    ended.objects,
                    has_tails=has_tails,
                    audio_seconds=ended.audio_seconds,
                    stored_bytes=ended.audio_bytes,
                    utterances=ended.utterances,
                    language=ended.language,
                    progress=ended.conclusion.progress,
                )
                if has_tails and ended.is_clean:
                    # Its tails were deleted while this was written, and the row that stated so may be the one before.
                    await self._rows.mark_tails_deleted(session_id)
            log.error(
                "the database had lost the end of a session: it is written again", session_id=ended.start.session_id
            )
        except (NotOwner, RowLost):
            # Another process has ended it meanwhile, or the next comparison finds it.
            log.warning("the end of a session cannot be written again", session_id=ended.start.session_id)


async def _write_all(rows: SessionRows, session_id: UUID, utterances: Sequence[Utterance]) -> None:
    for batch in numbered(session_id, utterances):
        await rows.write({}, batch)
