"""Session ids and list cursors."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidFilter, InvalidSessionId
from domain.session_id import format_session_id, new_session_id, parse_session_id, uuid7
from persistence.postgres.cursor import Cursor


def test_a_new_id_is_a_uuid7_of_now_in_its_public_form() -> None:
    text = new_session_id()
    identifier = parse_session_id(text)
    assert (identifier.version, identifier.variant) == (7, "specified in RFC 4122")
    assert format_session_id(identifier) == text
    milliseconds = identifier.int >> 80
    assert abs(milliseconds / 1000 - datetime.now(UTC).timestamp()) < 5


@settings(deadline=None)
@given(st.integers(0, 2**48 - 2))
def test_ids_sort_by_time(milliseconds: int) -> None:
    assert uuid7(milliseconds) < uuid7(milliseconds + 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sess_",
        "sess_" + "g" * 32,
        "sess_" + "A" * 32,
        "sess_" + "0" * 31,
        "0" * 32,
        "sess_" + "0" * 32 + "\n",
        "1; DROP TABLE realtime_sessions",
    ],
)
def test_other_text_is_not_a_session_id(text: str) -> None:
    with pytest.raises(InvalidSessionId):
        parse_session_id(text)


@settings(deadline=None)
@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.uuids())
def test_a_cursor_is_decoded_to_the_microsecond(time: datetime, identifier: UUID) -> None:
    cursor = Cursor(time.replace(tzinfo=timezone(timedelta(hours=2))), identifier)
    text = cursor.encode()
    assert Cursor.decode(text) == cursor
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_other_text_is_not_a_cursor(text: str) -> None:
    with pytest.raises(InvalidFilter) as refusal:
        Cursor.decode(text)
    assert refusal.value.parameter == "cursor"


@settings(deadline=None)
@given(st.uuids(), st.integers(0, 38), st.sampled_from("ABCxyz019-_"))
def test_a_cursor_with_a_typing_error_is_refused(identifier: UUID, place: int, letter: str) -> None:
    text = Cursor(datetime(2026, 1, 1, tzinfo=UTC), identifier).encode()
    if text[place] == letter or place == len(text) - 1:  # the last letter carries bits that nothing reads
        return
    with pytest.raises(InvalidFilter):
        Cursor.decode(text[:place] + letter + text[place + 1 :])
