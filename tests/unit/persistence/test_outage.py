from datetime import UTC, datetime, timedelta

from persistence.outage import _UNKNOWN_SECONDS, Outage
from persistence.storage_outages import earliest


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_lasts_from_its_first_failure_to_the_next_answer() -> None:
    outage = Outage(Clock())
    assert outage.since is None
    outage.failed()
    since = outage.since
    outage.failed()
    assert since is not None
    assert outage.since == since
    outage.answered()
    assert outage.since is None


def test_an_outage_is_forgotten_after_three_minutes_without_a_call() -> None:
    clock = Clock()
    outage = Outage(clock)
    outage.failed()
    clock.now += _UNKNOWN_SECONDS + 1
    assert outage.since is None
    outage.failed()
    assert outage.since is not None


def test_of_two_beginnings_the_earlier_one_counts() -> None:
    now = datetime.now(UTC)
    before = now - timedelta(seconds=9)
    assert earliest({"database": now}, {"database": before, "lease": now}) == {"database": before, "lease": now}
