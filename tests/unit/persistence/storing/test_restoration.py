"""Ended sessions are remembered and restored."""

import asyncio
import gc
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from domain.session import EndReason
from domain.transcript import TimedWord, Utterance
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects
from persistence.storing import restoration as restoration_module
from persistence.storing.restoration import Ended, Restoration


def ended(finals: int) -> Ended:
    kind = ("auto", "fast", "pcm_s16le", 16000, 1, True, True)
    start = SessionStart(uuid4(), uuid4(), "worker", datetime.now(UTC), *kind)
    utterances = [Utterance(0.0, 1.0, "word", 0.9, "en")] * finals
    done = Conclusion(EndReason("completed"), datetime.now(UTC), Progress())
    return Ended(start, done, StoredObjects(), 1.0, 1, utterances, "en")


def test_no_more_is_remembered_than_fits_the_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration_module, "MOST_REMEMBERED_BYTES", ended(10).memory_bytes())
    restoration = Restoration(SimpleNamespace())  # type: ignore[arg-type]
    restoration.remember(ended(5))
    restoration.remember(ended(11))
    assert remembered(restoration) == []
    restoration.remember(first := ended(10))
    assert remembered(restoration) == [first]
    restoration.remember(second := ended(1))
    assert remembered(restoration) == [second]
    taken = REGISTRY.get_sample_value("dalston_remembered_sessions_bytes")
    assert taken == restoration._bytes == second.memory_bytes()


def test_no_more_sessions_are_remembered_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration_module, "MOST_REMEMBERED", 3)
    restoration = Restoration(SimpleNamespace())  # type: ignore[arg-type]
    sessions = [ended(0) for _ in range(5)]
    for session in sessions:
        restoration.remember(session)
    assert remembered(restoration) == sessions[2:]
    assert restoration._bytes == 3 * ended(0).memory_bytes()


@pytest.mark.parametrize(
    ("finals", "words", "letters"), [(0, 0, ""), (1, 1, "x"), (40, 12, "abcdef"), (40, 12, "кириллица")]
)
def test_the_memory_that_a_session_takes_is_not_estimated_too_low(finals: int, words: int, letters: str) -> None:
    def session(number: int) -> Ended:
        utterances = [
            Utterance(
                at + number / 7,
                at + number / 3,
                " ".join(f"{letters}{number}{word}" for word in range(words)),
                number / 9,
                "en",
                number / 13,
                tuple(
                    TimedWord(f"{letters}{number}{word}", word + number / 7, word + number / 3, number / 11)
                    for word in range(words)
                ),
            )
            for at in range(finals)
        ]
        whole = replace(ended(0), utterances=utterances)
        uri = f"s3://a-bucket-with-a-rather-long-name/sessions/{whole.start.id}/audio.wav"
        return replace(whole, objects=StoredObjects(uri, f"{uri}{number}"))

    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        sessions = [session(number) for number in range(50)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    estimated = sum(each.memory_bytes() for each in sessions)
    assert taken <= estimated <= 3 * taken


def remembered(restoration: Restoration) -> list[Ended]:
    return [each for *_, each in restoration._ended]


async def test_old_ended_sessions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 1000.0, []

    async def row_states(ids: list[Any]) -> list[Any]:
        asked.append(ids)
        return [SimpleNamespace(id=each, is_missing=False, is_own=False) for each in ids]

    monkeypatch.setattr(restoration_module, "time", SimpleNamespace(monotonic=lambda: now))
    restoration = Restoration(SimpleNamespace(row_states=row_states))  # type: ignore[arg-type]
    restoration.remember(ended(5))
    await restoration.look([])
    now += restoration_module.REMEMBERED_SECONDS + 1
    await restoration.look([])
    assert [len(each) for each in asked] == [1]


class Rows:
    """A fake of SessionRows for a Postgres that has lost all ends."""

    def __init__(self) -> None:
        self.ended: list[UUID] = []
        self.looked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def row_states(self, ids: list[UUID]) -> list[Any]:
        self.looked.set()
        await self.may_answer.wait()
        return [
            SimpleNamespace(id=each, is_missing=False, is_own=True, is_unstored=each not in self.ended, has_tails=False)
            for each in ids
        ]

    async def conclude(self, session_id: UUID, _: Conclusion) -> bool:
        self.ended.append(session_id)
        return True

    async def write(self, *_: Any) -> None:
        pass

    async def set_stored(self, *_: Any, **__: Any) -> bool:
        return True


async def test_the_ends_of_many_sessions_are_written_again_in_several_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and finals of running sessions are written in between."""
    monkeypatch.setattr(restoration_module, "_ENDED_AT_ONCE", 2)
    rows = Rows()
    restoration = Restoration(rows)  # type: ignore[arg-type]
    for _ in range(5):
        restoration.remember(ended(1))
    restoration.doubt()
    counts = []
    while restoration.is_due:
        await restoration.look([])
        counts.append(len(rows.ended))
    assert counts == [2, 4, 5]


async def test_a_doubt_that_comes_while_it_looks_is_one_to_look_again() -> None:
    """The answers that it waits for may be those of a primary that is about to be replaced."""
    rows = Rows()
    rows.may_answer.clear()
    restoration = Restoration(rows)  # type: ignore[arg-type]
    restoration.remember(ended(1))
    restoration.doubt()
    looking = asyncio.create_task(restoration.look([]))
    await rows.looked.wait()
    restoration.doubt()
    rows.may_answer.set()
    await looking
    assert restoration.is_due
    await restoration.look([])
    assert not restoration.is_due


async def test_tails_deleted_during_a_restoration_are_marked_as_deleted() -> None:
    """Otherwise its row would state forever that there are tails, and no comparison would find it."""
    removed: list[UUID] = []
    session = ended(1)

    class Removing(Rows):
        async def set_stored(self, *_: Any, **__: Any) -> bool:
            # Meanwhile its finisher deletes them and marks that in the row that was there before.
            session.is_clean = True
            return True

        async def mark_tails_deleted(self, session_id: UUID) -> None:
            removed.append(session_id)

    restoration = Restoration(Removing())  # type: ignore[arg-type]
    restoration.remember(session)
    restoration.doubt()
    await restoration.look([])
    assert removed == [session.start.id]
