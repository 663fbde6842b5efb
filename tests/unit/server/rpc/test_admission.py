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
    with admission.place("a"):
        with admission.place("b"), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full()
        with admission.place("c"):
            pass


def test_nobody_is_let_in_while_utterances_wait_too_long() -> None:
    admission = Admission(5, MOST, lambda: 3.1)
    with admission.place("a"), pytest.raises(NoCapacity, match="behind"), admission.place("b"):
        pass
    with admission.place("c"):
        pass  # with no session left there is nobody to be hurt


def test_a_session_whose_text_takes_long_keeps_nobody_out_if_others_do_not_wait() -> None:
    admission = Admission(5, MOST, lambda: 0.0)
    with admission.place("a") as lag:
        lag.handed_over(0)
        with admission.place("b"):
            pass


def test_a_server_that_is_behind_lets_in_who_continues_a_session_of_its_own_and_nobody_else() -> None:
    waits = [0.0]
    admission = Admission(5, MOST, lambda: waits[0])
    with admission.place("a"), admission.place("b"):
        with admission.place("left"):
            pass
        waits[0] = 3.1
        with admission.place("continues left", "left"), admission.place("continues b", "b"):
            pass
        for other in ("", "another server's"):
            with pytest.raises(NoCapacity, match="behind"), admission.place("c", other):
                pass


def test_a_session_that_left_long_ago_is_not_the_server_s_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("server.rpc.admission.time.monotonic", lambda: now)
    waits = [0.0]
    admission = Admission(5, MOST, lambda: waits[0])
    with admission.place("a"):
        with admission.place("left"):
            pass
        waits[0] = 3.1
        now += 59
        admission.refuse_when_full("left")
        now += 2
        with pytest.raises(NoCapacity, match="behind"):
            admission.refuse_when_full("left")
        with pytest.raises(NoCapacity), admission.place("b"):
            pass


def test_a_full_server_lets_in_who_continues_a_session_that_runs_once_that_has_left() -> None:
    admission = Admission(1, MOST, lambda: 0.0)
    with admission.place("a"):
        admission.refuse_when_full("a")
        with pytest.raises(NoCapacity):
            admission.refuse_when_full("b")
    with admission.place("c", "a"), pytest.raises(NoCapacity):
        admission.refuse_when_full("a")
