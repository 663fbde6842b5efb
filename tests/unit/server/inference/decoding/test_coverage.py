import pytest

from server.inference.decoding.coverage import may_be_uncovered, spoken_seconds, uncovered, within

ALL = ((0.0, 20.0),)


def evenly(start: float, end: float) -> list[float]:
    """Tokens of a quarter of a second."""
    return [start + 0.25 * number for number in range(int((end - start) * 4) + 1)]


def test_a_text_throughout_the_speech_covers_it() -> None:
    assert uncovered(evenly(0.0, 20.0), ALL, 20.0) is None


def test_a_token_stretched_over_speech_reveals_what_was_left_out() -> None:
    assert uncovered([*evenly(0.0, 1.0), *evenly(16.0, 20.0)], ALL, 20.0) == (2.0, 16.0)


def test_speech_after_the_last_token_is_left_out() -> None:
    assert uncovered(evenly(0.0, 15.5), ALL, 20.0) == (15.5, 20.0)


def test_without_a_text_all_speech_is_left_out() -> None:
    assert uncovered([], ALL, 20.0) == (0.0, 20.0)
    assert uncovered([], ((1.0, 4.0),), 20.0) is None


def test_a_pause_is_not_left_out_speech() -> None:
    starts = [*evenly(0.0, 5.0), *evenly(15.0, 20.0)]
    assert uncovered(starts, ((0.0, 5.5), (15.0, 20.0)), 20.0) is None


@pytest.mark.parametrize(("seconds", "is_left_out"), [(4.9, False), (5.1, True)])
def test_more_than_four_seconds_beside_a_token_are_left_out(seconds: float, is_left_out: bool) -> None:
    starts = [*evenly(0.0, 5.0), *evenly(5.0 + seconds, 12.0)]
    assert (uncovered(starts, ((0.0, 12.0),), 12.0) is not None) == is_left_out


def test_left_out_stretches_of_speech_are_reported_together() -> None:
    starts = [*evenly(0.0, 2.0), *evenly(12.0, 14.0)]
    speech = ((0.0, 2.0), (4.0, 6.0), (7.0, 9.5), (12.0, 14.0))
    assert uncovered(starts, speech, 14.0) == (3.0, 12.0)


def test_little_speech_needs_no_alignment() -> None:
    assert not may_be_uncovered(((0.0, 2.0), (3.0, 5.5)))
    assert may_be_uncovered(((0.0, 2.0), (3.0, 6.5)))


def test_speech_is_counted_and_clipped_between_two_points() -> None:
    speech = ((1.0, 3.0), (4.0, 6.0))
    assert spoken_seconds(speech, 2.0, 5.0) == 2.0
    assert within(speech, 2.0, 4.5) == ((0.0, 1.0), (2.0, 2.5))
    assert within(speech, 3.0, 4.0) == ()
