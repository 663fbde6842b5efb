"""Comparisons run beside the writer: they delay no session, have a deadline, and stay due until one has succeeded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from domain.errors import StorageUnavailable
from persistence.errors import LeaseLost
from persistence.postgres.lost_rows import RowState
from persistence.session_values import Progress
from persistence.storing import row_comparison as looks_module
from persistence.storing import writer as writer_module
from persistence.storing.restoration import Restoration
from persistence.storing.row_comparison import RowComparison
from persistence.storing.writer import SessionWriter
from tests.unit.persistence.storing.test_writer import Rows, a_start


class SlowRows(Rows):
    """A restoration whose comparison waits until it is released, and then raises its error, if it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.error: BaseException | None = None

    async def row_states(self, session_ids: Sequence[UUID]) -> list[RowState]:
        self.began.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return await super().row_states(session_ids)


class Harness:
    def __init__(self) -> None:
        self.rows = SlowRows()
        self.restoration = Restoration(self.rows)  # type: ignore[arg-type]
        self.writer = SessionWriter(self.rows, self.restoration)  # type: ignore[arg-type]
        self.row_comparison = RowComparison(self.writer, self.restoration)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        tasks = [asyncio.create_task(each.run()) for each in (self.row_comparison, self.writer)]
        try:
            yield tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr(looks_module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "TICK_SECONDS", 0.01)
    return Harness()


async def until(ready: Any) -> None:
    async with asyncio.timeout(30):
        while not ready():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


def failures(reason: str) -> float:
    return REGISTRY.get_sample_value("dalston_row_look_failures_total", {"reason": reason}) or 0.0


async def test_a_slow_comparison_delays_no_figures_and_its_result_follows(harness: Harness) -> None:
    first, second = a_start(stores=False), a_start(stores=False)
    await harness.writer.begin(first, lambda: Progress(1.0))
    harness.restoration.doubt()
    async with harness.running():
        await harness.rows.began.wait()
        await harness.writer.begin(second, lambda: Progress(2.0))
        harness.writer.flush_soon(second.id)
        await until(lambda: harness.rows.statements == [{second.id: Progress(2.0)}])
        assert harness.restoration.is_due
        harness.rows.may_answer.set()
        # Whatever the rows had before: another Postgres may have answered.
        await until(lambda: {first.id: Progress(1.0)} in harness.rows.statements)
        assert not harness.restoration.is_due


async def test_figures_in_transfer_when_a_comparison_ends_are_written_again(harness: Harness) -> None:
    start = a_start(stores=False)
    await harness.writer.begin(start, lambda: Progress(1.0))
    write, may_write, writing = harness.rows.write, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        writing.set()
        await may_write.wait()
        return await write(*arguments)

    harness.rows.write = slow  # type: ignore[method-assign, assignment]
    harness.rows.may_answer.set()
    harness.writer.flush_soon(start.id)
    flushing = asyncio.create_task(harness.writer.flush())
    await writing.wait()
    harness.restoration.doubt()
    await harness.row_comparison.look()
    may_write.set()
    await flushing
    await harness.writer.flush()
    assert harness.rows.statements == [{start.id: Progress(1.0)}] * 2


@pytest.mark.parametrize(
    ("error", "reason"), [(StorageUnavailable("away"), "database"), (RuntimeError("a mistake"), "unexpected")]
)
async def test_a_look_that_fails_stays_due_is_counted_logged_once_and_repeated(
    harness: Harness, error: Exception, reason: str
) -> None:
    await harness.writer.begin(a_start(stores=False), Progress)
    harness.rows.error = error
    harness.rows.may_answer.set()
    harness.restoration.doubt()
    before = failures(reason)
    with capture_logs() as logs:
        async with harness.running():
            await until(lambda: failures(reason) >= before + 2)
            assert harness.restoration.is_due
            assert harness.row_comparison.failing_since is not None
            harness.rows.error = None
            await until(lambda: harness.row_comparison.failing_since is None)
            assert not harness.restoration.is_due
    logged = [each for each in logs if each["event"] == "rows cannot be compared with what was written"]
    assert [(each["log_level"], each["reason"]) for each in logged] == [("error", reason)]
    assert [each["log_level"] for each in logs if each["event"] == "rows are compared again"] == ["info"]


async def test_a_hanging_comparison_is_abandoned_at_its_deadline_and_repeated(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks_module, "LOOK_SECONDS", 0.05)
    await harness.writer.begin(a_start(stores=False), Progress)
    harness.restoration.doubt()
    before = failures("deadline")
    async with harness.running():
        await until(lambda: failures("deadline") >= before + 2)
        assert harness.restoration.is_due


async def test_a_comparison_cancelled_by_the_shutdown_ends_at_once_and_stays_due(harness: Harness) -> None:
    await harness.writer.begin(a_start(stores=False), Progress)
    harness.restoration.doubt()
    async with harness.running() as task:
        await harness.rows.began.wait()
    assert task.cancelled()
    assert harness.restoration.is_due


async def test_a_process_that_may_not_write_looks_no_more(harness: Harness) -> None:
    await harness.writer.begin(a_start(stores=False), Progress)
    harness.rows.error = LeaseLost()
    harness.rows.may_answer.set()
    harness.restoration.doubt()
    async with harness.running() as task, asyncio.timeout(30):
        await task
    assert harness.restoration.is_due
