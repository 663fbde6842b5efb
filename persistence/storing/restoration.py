"""Looks, when Postgres may have lost what it had confirmed, for what is gone, and writes it again.

Told by whoever has reason to doubt: a write that failed, a row that is not as it was left, a lease that shows that
another Postgres answers. What is remembered is not believed then: each session that runs here, and each that ended here
in the last minutes, is compared with its rows.
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
from persistence.records import Conclusion, Progress, SessionStart, StoredObjects
from telemetry.logs import get_logger

log = get_logger(__name__)

REMEMBERED_SECONDS: Final = 600.0
"""How far behind its primary a standby may be for this process to put right what that costs."""
MOST_REMEMBERED: Final = 10_000
"""Ended sessions that are remembered; the earliest is forgotten for one more."""
MOST_REMEMBERED_BYTES: Final = 64 * 1024 * 1024
"""Memory that they may take, their finals included, as `Ended.memory_bytes` estimates it."""
# What CPython takes for them, rounded up; texts come to it.
_SESSION_BYTES: Final = 2_500
_FINAL_BYTES: Final = 320
_WORD_BYTES: Final = 240
_ENDED_AT_ONCE: Final = 100
"""Sessions whose end is written again in one look: that takes about a second."""

_remembered_bytes = Gauge(
    "dalston_remembered_sessions_bytes", "Memory that sessions take that ended in the last minutes, estimated"
)


class Running(Protocol):
    """A session that this process runs and has written the row of."""

    @property
    def start(self) -> SessionStart: ...

    @property
    def progress(self) -> Callable[[], Progress]: ...

    @property
    def finals(self) -> Callable[[], Sequence[Utterance]]: ...


@dataclass(slots=True)
class Ended:
    """A session that ended here and is stored, as its row was left."""

    start: SessionStart
    conclusion: Conclusion
    objects: StoredObjects
    audio_seconds: float | None
    audio_bytes: int | None
    said: Sequence[Utterance] | None
    language: str | None
    is_clean: bool = False
    """Whether its tail objects are gone; its row says so, or is about to."""

    def memory_bytes(self) -> int:
        """What it takes of the memory, estimated rather too high."""
        return _SESSION_BYTES + sum(
            _FINAL_BYTES + 4 * len(each.text) + sum(_WORD_BYTES + 4 * len(word.word) for word in each.words)
            for each in self.said or ()
        )


class Restoration:
    """One for a process."""

    def __init__(self, rows: SessionRows, rewrite_parts: Callable[[], None] = lambda: None) -> None:
        """`rewrite_parts` has the parts of all running sessions written again."""
        self._rows = rows
        self._rewrite_parts = rewrite_parts
        self._ended: deque[tuple[float, int, Ended]] = deque()
        self._bytes = 0
        self._is_doubted = False
        self._is_looking = False

    @property
    def is_due(self) -> bool:
        """Whether there is reason to look, or a look is going on: until it has ended nothing is known to be there."""
        return self._is_doubted or self._is_looking

    def doubt(self) -> None:
        """Postgres may have lost something."""
        self._is_doubted = True

    def remember(self, ended: Ended) -> None:
        """A session has ended and is stored: from here on nothing but its row and its objects tells of it."""
        now = time.monotonic()
        size = ended.memory_bytes()
        self._ended.append((now, size, ended))
        self._bytes += size
        while len(self._ended) > MOST_REMEMBERED or self._bytes > MOST_REMEMBERED_BYTES:
            self._forget_first()
        self._forget_what_is_over(now)

    def _forget_what_is_over(self, now: float) -> None:
        while self._ended and now - self._ended[0][0] > REMEMBERED_SECONDS:
            self._forget_first()
        _remembered_bytes.set(self._bytes)

    def _forget_first(self) -> None:
        _, size, _ = self._ended.popleft()
        self._bytes -= size

    async def look(self, running: Iterable[Running]) -> None:
        """Compares what was written with what there is, and writes what is missing.

        Of many sessions whose end is missing some are left to the next time, which is due then: nothing else is written
        meanwhile.

        Raises:
            StorageUnavailable: Postgres is away; it stays due.
            LeaseLost: this process may not write.
        """
        # Whoever doubts from here on has reason to, whatever is found: it may be another Postgres than this one.
        self._is_doubted, self._is_looking = False, True
        try:
            await self._look(running)
        except BaseException:
            self._is_doubted = True
            raise
        finally:
            self._is_looking = False

    async def _look(self, running: Iterable[Running]) -> None:
        self._forget_what_is_over(time.monotonic())
        by_id = {each.start.id: each for each in running}
        ended = {each.start.id: each for *_, each in self._ended}
        kept = {each.id: each for each in await self._rows.row_states([*by_id, *ended])} if by_id or ended else {}
        # Together, the earlier sessions first: one may continue another.
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
            # While the object store is away there is a doubt a second: not all of the spool is read for each.
            return
        said = await asyncio.to_thread(session.finals)
        if kept.utterances < len(said):
            await _write_all(self._rows, session.start.id, said)

    async def _end_again(self, ended: Ended) -> None:
        """A row that has gone back to how it was before its session's end, or was inserted again."""
        session_id = ended.start.id
        try:
            if not await self._rows.conclude(session_id, ended.conclusion):
                return
            if ended.start.stores:
                await _write_all(self._rows, session_id, ended.said or ())
                has_tails = not ended.is_clean
                await self._rows.set_stored(
                    session_id,
                    ended.objects,
                    has_tails=has_tails,
                    audio_seconds=ended.audio_seconds,
                    stored_bytes=ended.audio_bytes,
                    utterances=ended.said,
                    language=ended.language,
                    progress=ended.conclusion.progress,
                )
                if has_tails and ended.is_clean:
                    # Its tails were removed while this was written, and the row that said so may be the one before.
                    await self._rows.mark_tails_deleted(session_id)
            log.error(
                "the database had lost the end of a session: it is written again", session_id=ended.start.session_id
            )
        except (NotOwner, RowLost):
            # Somebody else has ended it meanwhile, or the next look finds it.
            log.warning("the end of a session cannot be written again", session_id=ended.start.session_id)


async def _write_all(rows: SessionRows, session_id: UUID, said: Sequence[Utterance]) -> None:
    for batch in numbered(session_id, said):
        await rows.write({}, batch)
