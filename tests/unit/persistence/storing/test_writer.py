"""When the writer writes what, and what it does while Postgres is unavailable."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from domain.errors import StorageUnavailable, TooManySessions
from domain.session import EndReason
from domain.session_id import new_session_id, parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID, Caller, TenantLimits
from domain.transcript import Utterance
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.lost_rows import RowState
from persistence.session_values import Conclusion, Progress, SessionStart
from persistence.storing import writer as writer_module
from persistence.storing.row_comparison import RowComparison
from persistence.storing.writer import SessionWriter


class Rows:
    """A fake of SessionRows that keeps what was written."""

    def __init__(self) -> None:
        self.is_away = False
        self.inserted: list[UUID] = []
        self.admitted: list[UUID] = []
        self.statements: list[dict[UUID, Progress]] = []
        self.concluded: list[UUID] = []
        self.ended: list[UUID] = []
        self.finals: list[list[NumberedUtterance]] = []
        self.transactions = 0
        self.seconds: dict[UUID, float] = {}
        self.lost: set[UUID] = set()
        self.kept: dict[UUID, int] = {}
        """How many finals there are."""
        self.row_comparison = 0

    def _answer(self) -> None:
        if self.is_away:
            raise StorageUnavailable("away")

    async def insert(self, starts: Sequence[SessionStart]) -> None:
        self._answer()
        self.inserted += [start.id for start in starts]

    async def admit(self, start: SessionStart, caller: Caller) -> None:
        self._answer()
        if caller.limits.max_sessions == 0:
            raise TooManySessions(0)
        self.admitted.append(start.id)

    async def write(
        self, progress: Mapping[UUID, Progress], utterances: Sequence[NumberedUtterance] = ()
    ) -> dict[UUID, float]:
        self._answer()
        self.transactions += 1
        if progress:
            self.statements.append(dict(progress))
        if utterances:
            self.finals.append(list(utterances))
        before = {
            session_id: self.seconds.get(session_id, 0.0)
            for session_id in [*progress, *(s.session_id for s in utterances)]
        }
        self.seconds |= {session_id: each.audio_seconds for session_id, each in progress.items()}
        return {session_id: seconds for session_id, seconds in before.items() if session_id not in self.lost}

    async def row_states(self, session_ids: Sequence[UUID]) -> list[RowState]:
        self._answer()
        self.row_comparison += 1
        return [
            RowState(each, each in self.lost, each not in self.lost, False, False, self.kept.get(each, 0))
            for each in session_ids
        ]

    async def restore(self, starts: Sequence[SessionStart]) -> frozenset[UUID]:
        self._answer()
        restored = frozenset(start.id for start in starts) & self.lost
        self.lost -= restored
        return restored

    async def conclude(self, session_id: UUID, conclusion: Conclusion) -> bool:
        self._answer()
        self.concluded.append(session_id)
        return True

    async def end_refused(self, *_: Any) -> int:
        self._answer()
        self.ended += _[-1]
        return 0


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(writer_module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def writer(rows: Rows, clock: Clock) -> SessionWriter:
    return SessionWriter(rows)  # type: ignore[arg-type]


async def tick(writer: SessionWriter) -> None:
    """The work of one second: a comparison if it is due, and a flush."""
    await RowComparison(writer, writer._restoration).look()
    await writer.flush()


def a_start(*, stores: bool) -> SessionStart:
    identifier = parse_session_id(new_session_id())
    kind = ("auto", "fast", "pcm_s16le", 16000, 1, stores, stores)
    return SessionStart(identifier, DEFAULT_TENANT_ID, "worker", datetime.now(UTC), *kind)


DONE = Conclusion(EndReason("completed"), datetime.now(UTC), Progress())


async def test_due_sessions_are_written_in_one_statement(writer: SessionWriter, rows: Rows, clock: Clock) -> None:
    starts = [a_start(stores=False) for _ in range(50)]
    for number, start in enumerate(starts):
        await writer.begin(start, lambda number=number: Progress(audio_seconds=number + 1))  # type: ignore[misc]
    await writer.flush()
    assert rows.statements == []
    clock.now += 9.9
    await writer.flush()
    assert rows.statements == []
    clock.now += 0.2
    await writer.flush()
    assert len(rows.statements) == 1
    assert len(rows.statements[0]) == 50
    await writer.flush()
    assert len(rows.statements) == 1


async def test_an_utterance_is_written_at_the_next_tick(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=False)
    await writer.begin(start, lambda: Progress(1.0, 1, 2, "en"))
    writer.flush_soon(start.id)
    await writer.flush()
    assert rows.statements == [{start.id: Progress(1.0, 1, 2, "en")}]


async def test_figures_and_finals_of_all_sessions_are_one_transaction(writer: SessionWriter, rows: Rows) -> None:
    for start in [a_start(stores=True) for _ in range(3)]:
        await writer.begin(start, lambda: Progress(1.0, 1, 2, "en"))
        writer.flush_soon(start.id)
        writer.add_final(start.id, 0, a_final())
    await writer.flush()
    assert rows.transactions == 1
    assert [len(rows.statements[0]), len(rows.finals[0])] == [3, 3]


async def test_figures_that_did_not_change_are_not_written(writer: SessionWriter, rows: Rows, clock: Clock) -> None:
    await writer.begin(a_start(stores=False), Progress)
    clock.now += 60
    await writer.flush()
    assert rows.statements == []


async def test_writes_that_postgres_refused_are_repeated(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=False)
    await writer.begin(start, lambda: Progress(1.0, 1, 2, "en"))
    writer.flush_soon(start.id)
    rows.is_away = True
    with pytest.raises(StorageUnavailable):
        await writer.flush()
    rows.is_away = False
    await writer.flush()
    assert len(rows.statements) == 1


async def test_a_row_that_could_not_be_made_follows(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=False)
    rows.is_away = True
    await writer.begin(start, Progress)
    rows.is_away = False
    await writer.flush()
    assert rows.inserted == [start.id]


async def test_a_session_that_ended_before_its_row_was_made_gets_both(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=False)
    rows.is_away = True
    await writer.begin(start, Progress)
    with pytest.raises(StorageUnavailable):
        await writer.conclude(start, DONE)
    rows.is_away = False
    assert await writer.conclude(start, DONE)
    assert rows.inserted == rows.concluded == [start.id]
    await writer.flush()
    assert rows.inserted == [start.id]


async def test_a_refused_session_whose_row_may_be_there_is_ended(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=True)
    rows.is_away = True
    with pytest.raises(StorageUnavailable):
        await writer.begin(start, Progress)
    rows.is_away = False
    await writer.flush()
    await writer.flush()
    assert rows.ended == [start.id]
    assert rows.inserted == []


async def test_a_concluded_session_is_written_no_more(writer: SessionWriter, rows: Rows, clock: Clock) -> None:
    start = a_start(stores=False)
    await writer.begin(start, lambda: Progress(5.0))
    await writer.conclude(start, DONE)
    writer.flush_soon(start.id)
    clock.now += 60
    await writer.flush()
    assert rows.statements == []


async def test_the_writer_continues_after_a_failure(
    writer: SessionWriter, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "TICK_SECONDS", 0.01)
    start = a_start(stores=False)
    await writer.begin(start, lambda: Progress(1.0, 1, 2, "en"))
    writer.flush_soon(start.id)
    rows.is_away = True
    running = asyncio.create_task(writer.run())
    await asyncio.sleep(0.05)
    rows.is_away = False
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait({running})
    assert len(rows.statements) == 1


def a_final(text: str = "hello") -> Utterance:
    return Utterance(0.0, 1.0, text, 0.5, "en")


async def test_finals_of_all_sessions_go_into_one_statement(writer: SessionWriter, rows: Rows) -> None:
    starts = [a_start(stores=True) for _ in range(50)]
    for start in starts:
        await writer.begin(start, Progress)
        writer.add_final(start.id, 0, a_final())
        writer.add_final(start.id, 1, a_final("bye"))
    await writer.flush()
    assert [len(batch) for batch in rows.finals] == [100]
    assert {(each.session_id, each.index) for each in rows.finals[0]} == {
        (start.id, index) for start in starts for index in (0, 1)
    }


async def test_finals_that_postgres_did_not_take_are_written_in_their_order_later(
    writer: SessionWriter, rows: Rows
) -> None:
    start = a_start(stores=True)
    await writer.begin(start, Progress)
    writer.add_final(start.id, 0, a_final())
    rows.is_away = True
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await writer.flush()
    writer.add_final(start.id, 1, a_final())
    rows.is_away = False
    await writer.flush()
    assert [[each.index for each in batch] for batch in rows.finals] == [[0, 1]]


async def test_an_ending_is_written_after_the_finals(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=True)
    await writer.begin(start, Progress)
    writer.add_final(start.id, 0, a_final())
    assert await writer.conclude(start, DONE)
    assert len(rows.finals) == 1


async def test_finals_beyond_what_memory_may_hold_are_read_from_the_spool(
    writer: SessionWriter, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_MOST_WAITING", 1)
    start, other = a_start(stores=True), a_start(stores=True)
    for each in (start, other):
        await writer.begin(each, lambda: Progress(utterances=1), finals=lambda: [a_final()])
        writer.add_final(each.id, 0, a_final())
    rows.kept[start.id] = 1
    await tick(writer)
    assert sorted((each.session_id, each.index) for batch in rows.finals for each in batch) == sorted(
        [(start.id, 0), (other.id, 0)]
    )


async def test_sessions_over_the_limit_of_a_tenant_leave_no_row(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=True)
    await writer.begin(start, Progress, Caller(start.tenant_id, TenantLimits(max_sessions=1)))
    assert (rows.admitted, rows.inserted) == ([start.id], [])
    with pytest.raises(TooManySessions):
        await writer.begin(a_start(stores=True), Progress, Caller(start.tenant_id, TenantLimits(max_sessions=0)))
    await writer.flush()
    assert rows.ended == []


async def test_while_postgres_is_away_a_token_begins_nothing(writer: SessionWriter, rows: Rows) -> None:
    rows.is_away = True
    start = a_start(stores=False)
    with pytest.raises(StorageUnavailable):
        await writer.begin(start, Progress, Caller(start.tenant_id, token_hash=bytes(32)))
    await writer.begin(a_start(stores=False), Progress, Caller(start.tenant_id, TenantLimits(max_sessions=1)))


async def test_a_lost_row_is_inserted_again_with_all_finals_and_figures(writer: SessionWriter, rows: Rows) -> None:
    start, progress = a_start(stores=True), Progress(5.0, 2, 4, "en")
    await writer.begin(start, lambda: progress, finals=lambda: [a_final("one"), a_final("two")])
    writer.add_final(start.id, 0, a_final("one"))
    writer.flush_soon(start.id)
    await tick(writer)
    rows.lost.add(start.id)
    writer.add_final(start.id, 1, a_final("two"))
    writer.flush_soon(start.id)
    await tick(writer)
    assert rows.row_comparison == 0
    rows.finals.clear()
    rows.statements.clear()
    await tick(writer)
    assert (rows.row_comparison, rows.lost) == (1, set())
    assert [[each.utterance.text for each in batch] for batch in rows.finals] == [["one", "two"]]
    assert rows.statements == [{start.id: progress}]
    await tick(writer)
    assert rows.row_comparison == 1


async def test_a_row_older_than_written_has_all_rows_compared(writer: SessionWriter, rows: Rows) -> None:
    seconds = [5.0]
    starts = [a_start(stores=True) for _ in range(2)]
    for start in starts:
        await writer.begin(start, lambda: Progress(seconds[0], 1), finals=lambda: [a_final()])
        writer.flush_soon(start.id)
    await tick(writer)
    rows.seconds[starts[0].id], seconds[0] = 3.0, 6.0
    writer.flush_soon(starts[0].id)
    await tick(writer)
    await tick(writer)
    assert rows.row_comparison == 1
    assert {each.session_id for batch in rows.finals for each in batch} == {start.id for start in starts}


async def test_a_failed_write_has_the_rows_compared_once(writer: SessionWriter, rows: Rows) -> None:
    start = a_start(stores=True)
    await writer.begin(start, Progress, finals=lambda: [a_final()])
    writer.add_final(start.id, 0, a_final())
    rows.is_away = True
    with pytest.raises(StorageUnavailable):
        await tick(writer)
    rows.is_away = False
    rows.kept[start.id] = 1
    for _ in range(3):
        await tick(writer)
    assert rows.row_comparison == 1


async def test_no_spool_is_read_of_a_session_whose_finals_are_all_there(writer: SessionWriter, rows: Rows) -> None:
    """While S3 is unavailable, a comparison is due every second."""
    start, reads = a_start(stores=True), []

    def finals() -> list[Utterance]:
        reads.append(start.id)
        return [a_final("one"), a_final("two")]

    await writer.begin(start, lambda: Progress(utterances=2), finals=finals)
    for there, read in ((2, 0), (1, 1)):
        rows.kept[start.id] = there
        writer._restoration.doubt()
        await tick(writer)
        assert len(reads) == read


async def test_no_rows_are_compared_without_a_reason(writer: SessionWriter, rows: Rows, clock: Clock) -> None:
    start, seconds = a_start(stores=True), [0.0]
    await writer.begin(start, lambda: Progress(seconds[0]))
    for _ in range(5):
        seconds[0] += 1.0
        writer.flush_soon(start.id)
        clock.now += 1.0
        await tick(writer)
    await writer.conclude(start, DONE)
    assert (rows.row_comparison, rows.transactions) == (0, 5)
