from hypothesis import given
from hypothesis import strategies as st

from server.inference.scheduling.pace import Pace


def ahead_of(utterances: list[tuple[float, float]], *, others_wait: bool = False) -> list[bool]:
    """Of a session's utterances, each its length and when it came."""
    pace = Pace()
    return [pace.is_bulk("a", seconds, at, others_wait) for seconds, at in utterances]


@given(st.lists(st.tuples(st.floats(0.2, 28), st.floats(0, 60)), max_size=50), st.booleans())
def test_who_speaks_is_never_ahead_however_late_the_model_is(
    spoken: list[tuple[float, float]], others_wait: bool
) -> None:
    now, utterances = 0.0, []
    for seconds, pause in spoken:
        now += seconds + pause
        utterances.append((seconds, now))
    assert not any(ahead_of(utterances, others_wait=others_wait))


def test_a_recording_that_is_sent_twice_as_fast_is_ahead_from_its_first_seconds_on() -> None:
    outcomes = ahead_of([(5.0, 2.5 * number) for number in range(100)])
    assert outcomes.index(True) < 5
    assert all(outcomes[5:])


def test_a_recording_that_the_model_holds_up_is_ahead_while_it_gets_through_faster_than_it_was_spoken() -> None:
    at_first = [(5.0, 0.0)] * 4
    assert all(ahead_of(at_first + [(5.0, 4.5 * number) for number in range(1, 50)], others_wait=True)[4:])


def test_a_network_that_stood_still_makes_nobody_ahead() -> None:
    assert not any(ahead_of([(2.0, 10.0), (2.0, 14.5), (2.0, 14.5), (3.0, 17.5)]))


def test_who_has_sent_a_lot_again_is_live_again_soon() -> None:
    outcomes = ahead_of([(5.0, 0.1 * number) for number in range(10)] + [(4.0, 5.0 * number) for number in range(1, 9)])
    assert outcomes[9]
    assert not any(outcomes[13:])


def test_sessions_that_are_over_are_forgotten() -> None:
    pace = Pace()
    for number in range(1000):
        pace.is_bulk(number, 28.0, number, others_wait=False)
    assert len(pace._said_until) < 50
