import pytest

from server.inference.scheduling.allowance import MAX_WAIT_SECONDS, SAVED_SECONDS, Allowance


def busy_share(share: float, each: float, seconds: float) -> float:
    """The share of the time that work of `each` seconds takes if there always is work."""
    allowance, now, busy = Allowance(share), 1000.0, 0.0
    while now < 1000 + seconds:
        now += allowance.wait(now) + 1e-6
        now += each
        busy += each
        allowance.spend(each, now)
    return busy / (now - 1000)


@pytest.mark.parametrize("each", [0.01, 0.1, 0.4])
def test_the_average_is_the_share_whatever_the_length_of_work(each: float) -> None:
    assert busy_share(0.2, each, 1000) == pytest.approx(0.2, rel=0.05)


def test_unused_time_is_saved_up_to_a_bound() -> None:
    allowance = Allowance(0.2)
    now, count = 1000.0, 0
    while allowance.wait(now) == 0:
        now += 0.1
        count += 1
        allowance.spend(0.1, now)
    assert SAVED_SECONDS / 0.1 <= count <= SAVED_SECONDS / 0.1 / (1 - 0.2) + 1


def test_a_share_of_one_never_waits() -> None:
    assert busy_share(1, 0.1, 100) == pytest.approx(1, rel=0.01)


def test_a_debt_is_waited_for_two_seconds_at_most() -> None:
    allowance = Allowance(0.5)
    allowance.spend(SAVED_SECONDS + 0.5, 100)
    assert allowance.wait(100) == pytest.approx(1)
    assert allowance.wait(100.6) == pytest.approx(0.4)
    assert allowance.wait(102) == 0
    for seconds in (4, 60):
        allowance.spend(seconds, 103)
        assert allowance.wait(103) == pytest.approx(MAX_WAIT_SECONDS)
    assert busy_share(0.01, 4, 1000) == pytest.approx(4 / (4 + MAX_WAIT_SECONDS), rel=0.05)
