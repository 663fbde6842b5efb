import pytest

from server.access.rates import Rates


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> Rates:
    return Rates(most=3, clock=clock)


def test_a_burst_is_served_and_then_one_at_a_time(rates: Rates, clock: Clock) -> None:
    assert [rates.take("a", 2, 3) for _ in range(3)] == [0, 0, 0]
    assert rates.take("a", 2, 3) == 0.5
    clock.now += 0.25
    assert rates.take("a", 2, 3) == pytest.approx(0.25)
    clock.now += 0.25
    assert rates.take("a", 2, 3) == 0
    assert rates.take("a", 2, 3) == 0.5


def test_a_bucket_refills_to_its_burst_only(rates: Rates, clock: Clock) -> None:
    rates.take("a", 2, 3)
    clock.now += 3600
    assert [rates.take("a", 2, 3) > 0 for _ in range(4)] == [False, False, False, True]


def test_buckets_are_independent(rates: Rates) -> None:
    assert rates.take("a", 1, 1) == 0
    assert rates.take("b", 1, 1) == 0
    assert rates.take("a", 1, 1) > 0


def test_wait_takes_nothing_from_the_bucket(rates: Rates) -> None:
    assert rates.wait("a", 1, 1) == 0
    assert len(rates) == 0
    rates.take("a", 1, 1)
    assert rates.wait("a", 1, 1) == rates.wait("a", 1, 1) == 1


def test_the_number_of_buckets_is_bounded(rates: Rates) -> None:
    for number in range(1000):
        rates.take(number, 1, 1)
    assert len(rates) == 3
    assert rates.take(999, 1, 1) > 0
    assert rates.take(0, 1, 1) == 0
