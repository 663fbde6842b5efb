import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rpc.admission import Admission, Backlog
from server.session.errors import NoCapacity

MOST = 3.0


def noted(*lags: float) -> Backlog:
    """After an answer each second, the last at the time of their number."""
    backlog = Backlog(MOST)
    for number, seconds in enumerate(lags, start=1):
        backlog.note(seconds, number)
    return backlog


def test_one_late_answer_among_many_is_no_backlog() -> None:
    assert not noted(0.3, 0.3, 6.0, 0.3).is_behind(0.0, 4)
    assert not noted(0.3, 0.3, 6.0).is_behind(0.0, 3)


def test_answers_that_are_all_late_are_one() -> None:
    assert noted(*[5.0] * 10).is_behind(0.0, 10)


def test_an_utterance_that_nobody_answers_is_one() -> None:
    assert not noted().is_behind(2.9, 100)
    assert noted().is_behind(3.1, 100)


def test_a_server_that_was_behind_has_caught_up_at_half_of_the_lag() -> None:
    backlog = noted()
    assert backlog.is_behind(3.1, 100)
    assert backlog.is_behind(1.6, 101)
    assert not backlog.is_behind(1.4, 102)
    assert not backlog.is_behind(2.9, 103)


def test_what_was_late_is_forgotten() -> None:
    backlog = noted(*[10.0] * 20)
    assert backlog.is_behind(0.0, 20)
    assert not backlog.is_behind(0.0, 40)


@given(st.lists(st.floats(0, 1.4), max_size=30), st.floats(0, 1.4))
def test_a_server_in_time_is_never_behind(lags: list[float], waiting: float) -> None:
    assert not noted(*lags).is_behind(waiting, len(lags))


def test_there_are_so_many_places_and_one_that_is_left_is_free() -> None:
    admission = Admission(2, MOST)
    with admission.place():
        with admission.place(), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full()
        with admission.place():
            pass


def test_nobody_is_let_in_while_a_session_waits_too_long() -> None:
    admission = Admission(5, 0.0)
    with admission.place() as lag:
        lag.handed_over(0)
        with pytest.raises(NoCapacity, match="behind"), admission.place():
            pass
    with admission.place():
        pass  # with no session left there is nobody to be hurt
