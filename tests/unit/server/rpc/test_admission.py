import pytest

from server.rpc.admission import Admission, Backlog
from server.session.errors import NoCapacity

MOST = 3.0


def test_a_server_that_was_behind_has_caught_up_at_half_of_the_wait() -> None:
    backlog = Backlog(MOST)
    assert not backlog.is_behind(2.9)
    assert backlog.is_behind(3.1)
    assert backlog.is_behind(1.6)
    assert not backlog.is_behind(1.4)
    assert not backlog.is_behind(2.9)


def test_there_are_so_many_places_and_one_that_is_left_is_free() -> None:
    admission = Admission(2, MOST, lambda: 0.0)
    with admission.place():
        with admission.place(), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full()
        with admission.place():
            pass


def test_nobody_is_let_in_while_utterances_wait_too_long() -> None:
    admission = Admission(5, MOST, lambda: 3.1)
    with admission.place(), pytest.raises(NoCapacity, match="behind"), admission.place():
        pass
    with admission.place():
        pass  # with no session left there is nobody to be hurt


def test_a_session_whose_text_takes_long_keeps_nobody_out_if_others_do_not_wait() -> None:
    admission = Admission(5, MOST, lambda: 0.0)
    with admission.place() as lag:
        lag.handed_over(0)
        with admission.place():
            pass
