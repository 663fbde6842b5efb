import pytest

from telemetry.recent import Recent, quantile


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0], 0.5, 3.0), ([3.0], 0.95, 3.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0, 3.0], 0.5, 2.0)],
)
def test_a_quantile_is_one_of_the_values(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_95_of_100_values_are_at_most_the_95th() -> None:
    assert quantile([float(number) for number in range(1, 101)], 0.95) == 95.0
    assert quantile([float(number) for number in range(1, 101)], 1.0) == 100.0


def test_values_leave_the_window_with_time() -> None:
    clock = Clock()
    recent = Recent(seconds=10.0, clock=clock)
    recent.add(2.0)
    clock.now = 6.0
    recent.add(1.0)
    assert recent.values() == [1.0, 2.0]
    clock.now = 11.0
    assert recent.values() == [1.0]
    assert len(recent) == 1
    clock.now = 17.0
    assert recent.values() == []


def test_a_flood_of_values_takes_no_more_memory_than_the_latest_of_them() -> None:
    recent = Recent(most=3)
    for value in range(10):
        recent.add(float(value))
    assert recent.values() == [7.0, 8.0, 9.0]
