from hypothesis import given
from hypothesis import strategies as st

from server.session.budget import BURST, MAX_DEBT, PER_SECOND, HeldSegment, UtteranceBudget
from server.session.language import SpokenLanguage
from server.session.segmenter import SpeechSegment

RATE = 16_000


def spent(budget: UtteranceBudget, steps: int, audio_step: float, clock_step: float) -> int:
    return sum(budget.try_spend(number * audio_step, number * clock_step) for number in range(1, steps + 1))


def test_two_utterances_per_second_are_always_available() -> None:
    assert spent(UtteranceBudget(0), 1000, 0.5, 0.5) == 1000


def test_more_than_two_per_second_are_not_available() -> None:
    assert spent(UtteranceBudget(0), 1000, 0.1, 0.1) <= BURST + PER_SECOND * 100


def test_a_recording_sent_fast_has_as_many_as_live_audio() -> None:
    assert spent(UtteranceBudget(0), 1000, 0.5, 0.01) == 1000


def test_without_audio_wall_time_refills_the_budget() -> None:
    budget = UtteranceBudget(0)
    assert spent(budget, 20, 0.0, 0.0) == BURST
    assert budget.wait(0) == 0.5
    assert not budget.try_spend(0, 0.4)
    assert budget.try_spend(0, 0.5)


def test_extra_cost_is_charged_and_its_debt_is_bounded() -> None:
    budget = UtteranceBudget(0)
    assert budget.try_spend(0, 0)
    budget.charge(BURST)
    assert budget.wait(0) == 2 / PER_SECOND
    assert not budget.try_spend(0, 0)
    budget.charge(1000.0)
    assert budget.wait(0) == (1 + MAX_DEBT) / PER_SECOND
    assert budget.try_spend(0, (1 + MAX_DEBT) / PER_SECOND)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=200))
def test_the_budget_never_exceeds_audio_plus_wall_time(steps: list[tuple[float, float]]) -> None:
    budget, audio, now, count = UtteranceBudget(0), 0.0, 0.0, 0
    for audio_step, clock_step in steps:
        audio, now = audio + audio_step, now + clock_step
        count += budget.try_spend(audio, now)
        assert count <= BURST + PER_SECOND * (audio + now) + 1e-6


def test_a_held_segment_grows_up_to_the_longest_utterance() -> None:
    held = HeldSegment(SpeechSegment(0, RATE), SpokenLanguage("en"))
    assert held.fits(SpeechSegment(RATE, 28 * RATE))
    assert not held.fits(SpeechSegment(RATE, 28 * RATE + 1))
    held.join(SpeechSegment(2 * RATE, 3 * RATE))
    assert held.segment == SpeechSegment(0, 3 * RATE)


def test_a_held_segment_keeps_the_detected_speech_of_all_parts() -> None:
    """Otherwise a text that leaves most of it out would count as complete."""
    held = HeldSegment(SpeechSegment(RATE, 3 * RATE, ((0, RATE), (RATE + 1, 2 * RATE))), SpokenLanguage("en"))
    held.join(SpeechSegment(4 * RATE, 6 * RATE, ((100, 2 * RATE),)))
    held.join(SpeechSegment(6 * RATE, 7 * RATE, ((0, RATE),)))
    assert held.segment.speech == (
        (0, RATE),
        (RATE + 1, 2 * RATE),
        (3 * RATE + 100, 5 * RATE),
        (5 * RATE, 6 * RATE),
    )
