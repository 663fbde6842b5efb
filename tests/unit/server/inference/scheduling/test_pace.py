from hypothesis import given
from hypothesis import strategies as st

from server.inference.scheduling.pace import Pace


def bulk_flags(utterances: list[tuple[float, float]], *, others_wait: bool = False) -> list[bool]:
    """Whether each utterance of a session, given by length and arrival, is bulk."""
    pace = Pace()
    return [pace.is_bulk("a", seconds, at, others_wait) for seconds, at in utterances]


@given(st.lists(st.tuples(st.floats(0.2, 28), st.floats(0, 60)), max_size=50), st.booleans())
def test_live_speech_is_never_bulk_however_slow_the_model_is(
    spoken: list[tuple[float, float]], others_wait: bool
) -> None:
    now, utterances = 0.0, []
    for seconds, pause in spoken:
        now += seconds + pause
        utterances.append((seconds, now))
    assert not any(bulk_flags(utterances, others_wait=others_wait))


def test_a_recording_at_double_speed_is_bulk_after_few_seconds() -> None:
    outcomes = bulk_flags([(5.0, 2.5 * number) for number in range(100)])
    assert outcomes.index(True) < 5
    assert all(outcomes[5:])


def test_a_recording_held_up_by_the_model_is_bulk() -> None:
    at_first = [(5.0, 0.0)] * 4
    assert all(bulk_flags(at_first + [(5.0, 4.5 * number) for number in range(1, 50)], others_wait=True)[4:])


def test_a_stalled_network_makes_no_session_bulk() -> None:
    assert not any(bulk_flags([(2.0, 10.0), (2.0, 14.5), (2.0, 14.5), (3.0, 17.5)]))


def test_a_session_that_resent_audio_is_soon_live_again() -> None:
    outcomes = bulk_flags(
        [(5.0, 0.1 * number) for number in range(10)] + [(4.0, 5.0 * number) for number in range(1, 9)]
    )
    assert outcomes[9]
    assert not any(outcomes[13:])


def test_ended_sessions_are_discarded() -> None:
    pace = Pace()
    for number in range(1000):
        pace.is_bulk(number, 28.0, number, others_wait=False)
    assert len(pace._speech_until) < 50
