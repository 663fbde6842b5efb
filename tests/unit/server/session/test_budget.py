from hypothesis import given
from hypothesis import strategies as st

from server.session.budget import AT_ONCE, MOST_DEBT, PER_SECOND, Held, UtteranceBudget
from server.session.language import SpokenLanguage
from server.session.segmenter import SpeechSegment

RATE = 16_000


def taken(budget: UtteranceBudget, steps: int, audio_step: float, clock_step: float) -> int:
    return sum(budget.take(number * audio_step, number * clock_step) for number in range(1, steps + 1))


def test_two_utterances_a_second_are_always_there() -> None:
    assert taken(UtteranceBudget(0), 1000, 0.5, 0.5) == 1000


def test_more_than_that_are_not() -> None:
    assert taken(UtteranceBudget(0), 1000, 0.1, 0.1) <= AT_ONCE + PER_SECOND * 100


def test_a_recording_that_is_sent_fast_has_as_many_as_one_that_is_spoken() -> None:
    assert taken(UtteranceBudget(0), 1000, 0.5, 0.01) == 1000


def test_where_no_audio_comes_the_clock_gives_one() -> None:
    budget = UtteranceBudget(0)
    assert taken(budget, 20, 0.0, 0.0) == AT_ONCE
    assert budget.wait(0) == 0.5
    assert not budget.take(0, 0.4)
    assert budget.take(0, 0.5)


def test_what_cost_more_is_charged_and_keeps_the_next_waiting_for_seconds_at_most() -> None:
    budget = UtteranceBudget(0)
    assert budget.take(0, 0)
    budget.charge(AT_ONCE)
    assert budget.wait(0) == 2 / PER_SECOND
    assert not budget.take(0, 0)
    budget.charge(1000.0)
    assert budget.wait(0) == (1 + MOST_DEBT) / PER_SECOND
    assert budget.take(0, (1 + MOST_DEBT) / PER_SECOND)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=200))
def test_there_are_no_more_than_audio_and_clock_together_allow(steps: list[tuple[float, float]]) -> None:
    budget, audio, now, count = UtteranceBudget(0), 0.0, 0.0, 0
    for audio_step, clock_step in steps:
        audio, now = audio + audio_step, now + clock_step
        count += budget.take(audio, now)
        assert count <= AT_ONCE + PER_SECOND * (audio + now) + 1e-6


def test_what_is_held_grows_up_to_the_longest_utterance() -> None:
    held = Held(SpeechSegment(0, RATE), SpokenLanguage("en"))
    assert held.takes(SpeechSegment(RATE, 28 * RATE))
    assert not held.takes(SpeechSegment(RATE, 28 * RATE + 1))
    held.join(SpeechSegment(2 * RATE, 3 * RATE))
    assert held.utterance == SpeechSegment(0, 3 * RATE)


def test_what_is_held_knows_where_speech_was_heard_in_all_of_it() -> None:
    """Otherwise a text that leaves most of it out would be taken for a whole one."""
    held = Held(SpeechSegment(RATE, 3 * RATE, ((0, RATE), (RATE + 1, 2 * RATE))), SpokenLanguage("en"))
    held.join(SpeechSegment(4 * RATE, 6 * RATE, ((100, 2 * RATE),)))
    held.join(SpeechSegment(6 * RATE, 7 * RATE, ((0, RATE),)))
    assert held.utterance.speech == (
        (0, RATE),
        (RATE + 1, 2 * RATE),
        (3 * RATE + 100, 5 * RATE),
        (5 * RATE, 6 * RATE),
    )
