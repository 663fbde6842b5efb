import pytest

from server.rpc.admission import Admission, Backlog
from server.session.errors import NoCapacity

MOST = 3.0


def test_a_backlog_ends_below_half_of_the_limit() -> None:
    backlog = Backlog(MOST)
    assert not backlog.is_behind(2.9)
    assert backlog.is_behind(3.1)
    assert backlog.is_behind(1.6)
    assert not backlog.is_behind(1.4)
    assert not backlog.is_behind(2.9)


def test_places_are_limited_and_reused() -> None:
    admission = Admission(2, MOST, lambda _: 0.0)
    with admission.place("a", "acme"):
        with admission.place("b", "acme"), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full("acme")
        with admission.place("c", "acme"):
            pass


def test_sessions_are_refused_while_the_queue_delay_is_above_the_limit() -> None:
    admission = Admission(5, MOST, lambda _: 3.1)
    with admission.place("a", "acme"), pytest.raises(NoCapacity, match="behind"), admission.place("b", "acme"):
        pass
    with admission.place("c", "acme"):
        pass  # without another session no client would wait longer


def test_the_lag_of_one_session_refuses_no_others() -> None:
    admission = Admission(5, MOST, lambda _: 0.0)
    with admission.place("a", "acme") as lag:
        lag.handed_over(0)
        with admission.place("b", "acme"):
            pass


def test_a_backlogged_server_admits_only_clients_that_resume_its_sessions() -> None:
    waits = [0.0]
    admission = Admission(5, MOST, lambda _: waits[0])
    with admission.place("a", "acme"), admission.place("b", "acme"):
        with admission.place("left", "acme"):
            pass
        waits[0] = 3.1
        with admission.place("resumes left", "acme", "left"), admission.place("resumes b", "acme", "b"):
            pass
        for other in ("", "another server's"):
            with pytest.raises(NoCapacity, match="behind"), admission.place("c", "acme", other):
                pass


def test_a_session_that_ended_a_minute_ago_gives_no_priority(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_full_server_admits_a_client_that_resumes_a_running_session() -> None:
    admission = Admission(1, MOST, lambda _: 0.0)
    with admission.place("a", "acme"):
        admission.refuse_when_full("acme", "a")
        with pytest.raises(NoCapacity):
            admission.refuse_when_full("acme", "b")
    with admission.place("c", "acme", "a"), pytest.raises(NoCapacity):
        admission.refuse_when_full("acme", "a")


def test_only_the_tenant_with_a_queue_delay_is_refused() -> None:
    late = {"flood": 3.1, "other": 0.4}
    admission = Admission(9, MOST, lambda tenant: late[str(tenant)])
    with admission.place("a", "other"), admission.place("b", "other"):
        with pytest.raises(NoCapacity, match="behind"):
            admission.refuse_when_full("flood")
        admission.refuse_when_full("other")


def test_the_backlog_of_a_tenant_ends_below_half_of_the_limit() -> None:
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


def test_a_tenant_cannot_occupy_the_places_of_others() -> None:
    admission = Admission(4, MOST, lambda _: 0.0, tenant_share=0.75)
    with admission.place("1", "acme"), admission.place("2", "acme"), admission.place("3", "acme"):
        with pytest.raises(NoCapacity, match="of one tenant"):
            admission.refuse_when_full("acme")
        admission.refuse_when_full("acme", "1")
        with admission.place("4", "other"), pytest.raises(NoCapacity, match="as many sessions as it can"):
            admission.refuse_when_full("other")


def test_a_tenant_has_one_place_however_small_its_share() -> None:
    Admission(2, MOST, lambda _: 0.0, tenant_share=0.1).refuse_when_full("acme")
