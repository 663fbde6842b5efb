from hypothesis import given
from hypothesis import strategies as st

from server.inference.decoding.repetition import LENIENT, LONGEST_PERIOD, STRICT, RepetitionGuard

GUARD = RepetitionGuard(short=3, long=2)


def first_alarm(guard: RepetitionGuard, tokens: list[int]) -> tuple[int, int] | None:
    """The number of tokens at which the guard detects a loop, and where it would cut."""
    for count in range(1, len(tokens) + 1):
        if (start := guard.loop_start(tokens[:count])) is not None:
            return count, start
    return None


def test_a_word_repeated_three_times_is_a_loop_kept_once() -> None:
    assert GUARD.loop_start([1, 2, 9, 9, 9]) == 3


def test_a_word_repeated_twice_is_no_loop() -> None:
    assert GUARD.loop_start([1, 2, 9, 9]) is None


def test_a_phrase_of_six_tokens_repeated_twice_is_a_loop() -> None:
    phrase = [1, 2, 3, 4, 5, 6]
    assert GUARD.loop_start([0, *phrase, *phrase]) == 7


def test_the_longest_period_is_detected_and_a_longer_one_is_not() -> None:
    longest, longer = list(range(LONGEST_PERIOD)), list(range(LONGEST_PERIOD + 1))
    assert GUARD.loop_start(longest * 2) == LONGEST_PERIOD
    assert GUARD.loop_start(longer * 2) is None


def test_a_loop_is_detected_at_the_token_that_completes_it() -> None:
    assert first_alarm(GUARD, [7, 1, 2, 1, 2, 1, 2, 1, 2]) == (7, 3)


def test_a_repetition_that_has_ended_is_not_detected() -> None:
    assert GUARD.loop_start([5, 5, 5, 6]) is None


def test_no_tokens_are_no_loop() -> None:
    assert GUARD.loop_start([]) is None


@given(st.lists(st.integers(0, 3), max_size=120))
def test_the_text_cut_off_repeats_the_text_kept(tokens: list[int]) -> None:
    for guard in (STRICT, LENIENT):
        start = guard.loop_start(tokens)
        if start is None:
            continue
        cut = tokens[start:]
        times = next(
            n for n in (guard.short - 1, guard.long - 1) if len(cut) % n == 0 and cut == cut[: len(cut) // n] * n
        )
        period = len(cut) // times
        assert tokens[start - period : start] == cut[:period]


@given(st.lists(st.integers(0, 2), max_size=100))
def test_the_lenient_guard_never_detects_before_the_strict_one(tokens: list[int]) -> None:
    strict, lenient = first_alarm(STRICT, tokens), first_alarm(LENIENT, tokens)
    assert lenient is None or (strict is not None and strict[0] <= lenient[0])
