"""What is remembered of sessions that have ended."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from persistence import restoration as restoration_module
from persistence.records import Conclusion, Ending, Progress, SessionStart, StoredObjects
from persistence.restoration import Ended, Restoration
from persistence.transcript import Utterance


def ended(finals: int) -> Ended:
    kind = ("auto", "fast", "pcm_s16le", 16000, 1, True, True)
    start = SessionStart(uuid4(), uuid4(), "worker", datetime.now(UTC), *kind)
    said = [Utterance(0.0, 1.0, "word", 0.9, "en", ())] * finals
    done = Conclusion(Ending("completed"), datetime.now(UTC), Progress())
    return Ended(start, done, StoredObjects(), 1.0, 1, said, "en")


def test_a_session_with_more_finals_than_are_remembered_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration_module, "_MOST_FINALS", 10)
    restoration = Restoration(SimpleNamespace())  # type: ignore[arg-type]
    restoration.remember(ended(5))
    restoration.remember(ended(11))
    assert len(restoration._ended) == 0
    restoration.remember(ended(10))
    assert len(restoration._ended) == 1


async def test_what_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 1000.0, []

    async def look(ids: list[Any]) -> list[Any]:
        asked.append(ids)
        return [SimpleNamespace(id=each, is_missing=False, is_own=False) for each in ids]

    monkeypatch.setattr(restoration_module, "time", SimpleNamespace(monotonic=lambda: now))
    restoration = Restoration(SimpleNamespace(look=look))  # type: ignore[arg-type]
    restoration.remember(ended(5))
    await restoration.look([])
    now += restoration_module.REMEMBERED_SECONDS + 1
    await restoration.look([])
    assert [len(each) for each in asked] == [1]
