import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.session_id import new_uuid7
from persistence.postgres import partials
from persistence.postgres.partials import ObservedPartial, PartialFeed, shortened

SESSION = new_uuid7()
MOST_PAYLOAD_BYTES = 7999
"""Of Postgres."""


def test_a_long_text_is_cut_after_a_word() -> None:
    words = "word " * 1000
    kept = shortened(words)
    assert words.startswith(kept)
    assert kept.endswith("word")
    assert 2040 <= len(kept) <= 2048


def test_a_text_without_spaces_is_cut_after_a_character() -> None:
    assert shortened("\u8a9e" * 1000) == "\u8a9e" * 682


@pytest.mark.parametrize("text", ["", "He was not an ill-disposed young man,", "\u8a9e\U0001f600"])
def test_a_short_text_stays(text: str) -> None:
    assert shortened(text) == text


@given(text=st.text(max_size=200) | st.text('"\\\n\x00\u8a9e ', min_size=2000, max_size=9000))
def test_every_text_fits_into_a_notification(text: str) -> None:
    payload = partials._payload(SESSION, ObservedPartial(10**9, text, 86_399.123456789, 86_400.123456789))
    assert len(payload.encode()) <= MOST_PAYLOAD_BYTES
    assert json.loads(payload)[2] == shortened(text)


def test_names_of_many_sessions_fit_into_notifications() -> None:
    sessions = [new_uuid7() for _ in range(1001)]
    names = partials._names(sessions)
    assert max(map(len, names)) <= MOST_PAYLOAD_BYTES
    assert [name for each in names for name in each.split(",")] == [each.hex for each in sessions]


def test_a_feed_keeps_the_newest_until_the_finals_before_it_were_sent() -> None:
    woken: list[int] = []
    feed = PartialFeed(lambda: woken.append(1))
    assert feed.take(0) is None
    feed.put(ObservedPartial(2, "a", 0.0, 1.0))
    feed.put(newest := ObservedPartial(2, "a b", 0.0, 1.5))
    assert len(woken) == 2
    assert feed.take(1) is None
    assert feed.take(2) == newest
    assert feed.take(2) is None
    feed.put(newest)
    assert feed.take(3) is None
    assert feed.take(2) is None
