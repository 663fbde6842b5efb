import pytest

from server.inference.decoding.repetition import STRICT
from server.inference.decoding.token_rules import RowDecoding
from server.inference.whisper.special_tokens import SpecialTokens

END, FIRST_TIMESTAMP, SIZE = 100, 110, 1611
SPECIAL_TOKENS = SpecialTokens(
    size=SIZE,
    end=END,
    start=101,
    transcribe=103,
    previous=107,
    no_speech=108,
    first_timestamp=FIRST_TIMESTAMP,
    languages={"en": 102},
    suppressed=(1, 2),
    suppressed_first=(3, END),
    last_initial_timestamp=FIRST_TIMESTAMP + 50,
)


def timestamp(seconds: float) -> int:
    return FIRST_TIMESTAMP + round(seconds / 0.02)


def row(*tokens: int, duration: float = 5.0, cap: int = 50) -> RowDecoding:
    decoding = RowDecoding(SPECIAL_TOKENS, duration, cap, STRICT)
    for token in tokens:
        decoding.accept(token, -0.5)
    return decoding


def test_a_transcript_begins_with_a_timestamp_in_the_first_second() -> None:
    allowed = row().allowed()
    assert (allowed.text, allowed.end) == (False, False)
    assert allowed.timestamps == range(timestamp(0), timestamp(1.0) + 1)


def test_text_follows_the_opening_timestamp() -> None:
    allowed = row(timestamp(0)).allowed()
    assert allowed.text
    assert allowed.opens_text
    assert not allowed.timestamps


def test_after_text_no_timestamp_makes_an_empty_segment() -> None:
    allowed = row(timestamp(0.4), 7).allowed()
    assert (allowed.text, allowed.opens_text, allowed.end) == (True, False, True)
    assert allowed.timestamps == range(timestamp(0.42), SIZE)


def test_a_later_timestamp_or_the_end_follows_a_closing_timestamp() -> None:
    allowed = row(timestamp(0), 7, timestamp(2.0)).allowed()
    assert (allowed.text, allowed.end) == (False, True)
    assert allowed.timestamps == range(timestamp(2.0), SIZE)


def test_a_second_segment_has_text() -> None:
    allowed = row(timestamp(0), 7, timestamp(2.0), timestamp(2.0)).allowed()
    assert (allowed.text, allowed.opens_text) == (True, False)
    assert not allowed.timestamps


@pytest.mark.parametrize(("closing", "ending"), [(4.68, None), (4.72, "closed"), (5.5, "closed")])
def test_a_segment_closed_near_the_utterances_end_is_the_last(closing: float, ending: str | None) -> None:
    assert row(timestamp(0), 7, timestamp(closing)).ending == ending


def test_an_opening_timestamp_near_the_end_closes_no_segment() -> None:
    assert row(timestamp(0.1), duration=0.3).ending is None


def test_the_end_token_ends_the_row_and_is_not_part_of_it() -> None:
    decoding = row(timestamp(0), 7, 8, END)
    assert decoding.ending == "end"
    assert decoding.tokens == [timestamp(0), 7, 8]


def test_only_text_tokens_count_for_text_and_probability() -> None:
    decoding = row(timestamp(0), 7, 8, timestamp(1), timestamp(1), 9)
    assert decoding.text == [7, 8, 9]
    assert decoding.log_probabilities == [-0.5] * 3


def test_a_row_that_repeats_itself_ends_and_keeps_the_text_once() -> None:
    decoding = row(timestamp(0), 7, 9, 9, 9)
    assert decoding.ending == "loop"
    assert decoding.text == [7, 9]


def test_a_repetition_across_segments_is_detected() -> None:
    decoding = row(timestamp(0), 9, timestamp(1), timestamp(1), 9, timestamp(2), timestamp(2), 9)
    assert decoding.ending == "loop"


def test_a_row_that_does_not_end_is_stopped() -> None:
    decoding = row(timestamp(0), 4, 5, 6, cap=4)
    assert decoding.ending == "cap"
    assert decoding.text == [4, 5, 6]


def test_a_row_that_ends_at_a_timestamp_has_audio_after_it() -> None:
    assert row(timestamp(0), 4, timestamp(2.0), END).seconds_after_last_timestamp == pytest.approx(3.0)
    assert row(timestamp(0), 4, timestamp(2.0), timestamp(2.5), END).seconds_after_last_timestamp == pytest.approx(2.5)


def test_a_row_with_text_to_the_end_has_no_audio_after_it() -> None:
    assert row(timestamp(0), 4, 5, END).seconds_after_last_timestamp == 0
    assert row(timestamp(0), 4, timestamp(4.9)).seconds_after_last_timestamp == 0
