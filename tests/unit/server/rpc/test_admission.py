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
    admission = Admission(2, MOST, lambda _: 0.0)
    with admission.place("a", "acme"):
        with admission.place("b", "acme"), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full("acme")
        with admission.place("c", "acme"):
            pass


def test_nobody_is_let_in_while_utterances_wait_too_long() -> None:
    admission = Admission(5, MOST, lambda _: 3.1)
    with admission.place("a", "acme"), pytest.raises(NoCapacity, match="behind"), admission.place("b", "acme"):
        pass
    with admission.place("c", "acme"):
        pass  # with no session left there is nobody to be hurt


def test_a_session_whose_text_takes_long_keeps_nobody_out_if_others_do_not_wait() -> None:
    admission = Admission(5, MOST, lambda _: 0.0)
    with admission.place("a", "acme") as lag:
        lag.handed_over(0)
        with admission.place("b", "acme"):
            pass


def test_a_server_that_is_behind_lets_in_who_continues_a_session_of_its_own_and_nobody_else() -> None:
    waits = [0.0]
    admission = Admission(5, MOST, lambda _: waits[0])
    with admission.place("a", "acme"), admission.place("b", "acme"):
        with admission.place("left", "acme"):
            pass
        waits[0] = 3.1
        with admission.place("continues left", "acme", "left"), admission.place("continues b", "acme", "b"):
            pass
        for other in ("", "another server's"):
            with pytest.raises(NoCapacity, match="behind"), admission.place("c", "acme", other):
                pass


def test_a_session_that_left_long_ago_is_not_the_server_s_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("server.rpc.admission.time.monotonic", lambda: now)
    waits = [0.0]
    admission = Admission(5, MOST, lambda _: waits[0])
    with admission.place("a", "acme"):
        with admission.place("left", "acme"):
            pass
        waits[0] = 3.1
        now += 59
        admission.refuse_when_full("acme", "left")
        now += 2
        with pytest.raises(NoCapacity, match="behind"):
            admission.refuse_when_full("acme", "left")
        with pytest.raises(NoCapacity), admission.place("b", "acme"):
            pass


def test_a_full_server_lets_in_who_continues_a_session_that_runs_once_that_has_left() -> None:
    admission = Admission(1, MOST, lambda _: 0.0)
    with admission.place("a", "acme"):
        admission.refuse_when_full("acme", "a")
        with pytest.raises(NoCapacity):
            admission.refuse_when_full("acme", "b")
    with admission.place("c", "acme", "a"), pytest.raises(NoCapacity):
        admission.refuse_when_full("acme", "a")


def test_a_tenant_whose_sessions_wait_for_each_other_is_refused_and_another_is_not() -> None:
    late = {"flood": 3.1, "other": 0.4}
    admission = Admission(9, MOST, lambda tenant: late[str(tenant)])
    with admission.place("a", "other"), admission.place("b", "other"):
        with pytest.raises(NoCapacity, match="behind"):
            admission.refuse_when_full("flood")
        admission.refuse_when_full("other")


def test_a_tenant_that_was_behind_has_caught_up_at_half_of_the_wait() -> None:
    late = {"flood": 0.0}
    admission = Admission(9, MOST, lambda tenant: late[str(tenant)])
    with admission.place("a", "flood"):
        for seconds, is_refused in ((3.1, True), (1.6, True), (1.4, False), (2.9, False)):
            late["flood"] = seconds
            if is_refused:
                with pytest.raises(NoCapacity):
                    admission.refuse_when_full("flood")
            else:
                admission.refuse_when_full("flood")


def test_one_tenant_leaves_places_to_others() -> None:
    admission = Admission(4, MOST, lambda _: 0.0, tenant_share=0.75)
    with admission.place("1", "acme"), admission.place("2", "acme"), admission.place("3", "acme"):
        with pytest.raises(NoCapacity, match="of one tenant"):
            admission.refuse_when_full("acme")
        admission.refuse_when_full("acme", "1")
        with admission.place("4", "other"), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full("other")


def test_a_tenant_has_one_place_however_small_its_share() -> None:
    Admission(2, MOST, lambda _: 0.0, tenant_share=0.1).refuse_when_full("acme")
