from hypothesis import given
from hypothesis import strategies as st

from server.inference.decoding.repetition import EAGER, LONGEST_PERIOD, PATIENT, RepetitionGuard

GUARD = RepetitionGuard(short=3, long=2)


def first_alarm(guard: RepetitionGuard, tokens: list[int]) -> tuple[int, int] | None:
    """How many tokens had been written when the guard spoke up, and where it would cut."""
    for count in range(1, len(tokens) + 1):
        if (start := guard.loop_start(tokens[:count])) is not None:
            return count, start
    return None


def test_a_word_said_three_times_is_a_loop_and_is_kept_once() -> None:
    assert GUARD.loop_start([1, 2, 9, 9, 9]) == 3


def test_a_word_said_twice_is_no_loop() -> None:
    assert GUARD.loop_start([1, 2, 9, 9]) is None


def test_a_phrase_of_six_tokens_said_twice_is_a_loop() -> None:
    phrase = [1, 2, 3, 4, 5, 6]
    assert GUARD.loop_start([0, *phrase, *phrase]) == 7


def test_a_sentence_of_the_longest_period_is_noticed_and_a_longer_one_is_not() -> None:
    longest, longer = list(range(LONGEST_PERIOD)), list(range(LONGEST_PERIOD + 1))
    assert GUARD.loop_start(longest * 2) == LONGEST_PERIOD
    assert GUARD.loop_start(longer * 2) is None


def test_a_loop_is_noticed_at_the_first_token_that_completes_it() -> None:
    assert first_alarm(GUARD, [7, 1, 2, 1, 2, 1, 2, 1, 2]) == (7, 3)


def test_a_repetition_that_the_text_has_left_behind_is_not_looked_for() -> None:
    assert GUARD.loop_start([5, 5, 5, 6]) is None


def test_no_tokens_are_no_loop() -> None:
    assert GUARD.loop_start([]) is None


@given(st.lists(st.integers(0, 3), max_size=120))
def test_what_is_cut_off_repeats_what_is_kept(tokens: list[int]) -> None:
    for guard in (EAGER, PATIENT):
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
def test_the_patient_guard_never_speaks_up_before_the_eager_one(tokens: list[int]) -> None:
    eager, patient = first_alarm(EAGER, tokens), first_alarm(PATIENT, tokens)
    assert patient is None or (eager is not None and eager[0] <= patient[0])
