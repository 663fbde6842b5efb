import pytest

from server.inference.decoding.repetition import EAGER
from server.inference.decoding.token_rules import RowDecoding
from server.inference.whisper.special_tokens import SpecialTokens

END, FIRST_STAMP, SIZE = 100, 110, 1611
VOCABULARY = SpecialTokens(
    size=SIZE,
    end=END,
    start=101,
    transcribe=103,
    previous=107,
    no_speech=108,
    first_stamp=FIRST_STAMP,
    languages={"en": 102},
    suppressed=(1, 2),
    suppressed_first=(3, END),
    last_initial_stamp=FIRST_STAMP + 50,
)


def stamp(seconds: float) -> int:
    return FIRST_STAMP + round(seconds / 0.02)


def row(*tokens: int, duration: float = 5.0, cap: int = 50) -> RowDecoding:
    decoding = RowDecoding(VOCABULARY, duration, cap, EAGER)
    for token in tokens:
        decoding.accept(token, -0.5)
    return decoding


def test_a_transcript_begins_with_a_stamp_in_the_first_second() -> None:
    allowed = row().allowed()
    assert (allowed.text, allowed.end) == (False, False)
    assert allowed.stamps == range(stamp(0), stamp(1.0) + 1)


def test_text_follows_the_opening_stamp() -> None:
    allowed = row(stamp(0)).allowed()
    assert allowed.text
    assert allowed.opens_text
    assert not allowed.stamps


def test_after_text_anything_may_come_but_no_stamp_that_makes_an_empty_segment() -> None:
    allowed = row(stamp(0.4), 7).allowed()
    assert (allowed.text, allowed.opens_text, allowed.end) == (True, False, True)
    assert allowed.stamps == range(stamp(0.42), SIZE)


def test_a_closing_stamp_is_followed_by_a_stamp_no_earlier_or_the_end() -> None:
    allowed = row(stamp(0), 7, stamp(2.0)).allowed()
    assert (allowed.text, allowed.end) == (False, True)
    assert allowed.stamps == range(stamp(2.0), SIZE)


def test_a_second_segment_has_text() -> None:
    allowed = row(stamp(0), 7, stamp(2.0), stamp(2.0)).allowed()
    assert (allowed.text, allowed.opens_text) == (True, False)
    assert not allowed.stamps


@pytest.mark.parametrize(("closing", "ending"), [(4.68, None), (4.72, "closed"), (5.5, "closed")])
def test_a_segment_closed_near_the_utterances_end_is_the_last(closing: float, ending: str | None) -> None:
    assert row(stamp(0), 7, stamp(closing)).ending == ending


def test_an_opening_stamp_near_the_end_of_a_short_utterance_does_not_close_it() -> None:
    assert row(stamp(0.1), duration=0.3).ending is None


def test_the_end_token_ends_the_row_and_is_not_part_of_it() -> None:
    decoding = row(stamp(0), 7, 8, END)
    assert decoding.ending == "end"
    assert decoding.tokens == [stamp(0), 7, 8]


def test_only_text_tokens_count_for_text_and_probability() -> None:
    decoding = row(stamp(0), 7, 8, stamp(1), stamp(1), 9)
    assert decoding.text == [7, 8, 9]
    assert decoding.log_probabilities == [-0.5] * 3


def test_a_row_that_repeats_itself_ends_and_keeps_the_text_once() -> None:
    decoding = row(stamp(0), 7, 9, 9, 9)
    assert decoding.ending == "loop"
    assert decoding.text == [7, 9]


def test_a_repetition_across_segments_is_noticed_too() -> None:
    decoding = row(stamp(0), 9, stamp(1), stamp(1), 9, stamp(2), stamp(2), 9)
    assert decoding.ending == "loop"


def test_a_row_that_does_not_stop_is_stopped() -> None:
    decoding = row(stamp(0), 4, 5, 6, cap=4)
    assert decoding.ending == "cap"
    assert decoding.text == [4, 5, 6]


def test_a_row_that_ends_at_a_stamp_leaves_the_audio_after_it_unheard() -> None:
    assert row(stamp(0), 4, stamp(2.0), END).unheard_seconds == pytest.approx(3.0)
    assert row(stamp(0), 4, stamp(2.0), stamp(2.5), END).unheard_seconds == pytest.approx(2.5)


def test_a_row_whose_text_goes_on_to_the_end_leaves_nothing_unheard() -> None:
    assert row(stamp(0), 4, 5, END).unheard_seconds == 0
    assert row(stamp(0), 4, stamp(4.9)).unheard_seconds == 0
