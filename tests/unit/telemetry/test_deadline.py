"""The time that the steps of a shutdown have left."""

import pytest

from telemetry.deadline import Deadline


def test_time_kept_for_later_steps_is_not_returned() -> None:
    deadline = Deadline()
    deadline.begin(10)
    assert deadline.left() == pytest.approx(10, abs=0.1)
    assert deadline.left(4) == pytest.approx(6, abs=0.1)
    assert deadline.left(11) == 0


def test_only_the_first_begin_counts() -> None:
    deadline = Deadline()
    deadline.begin(1)
    deadline.begin(100)
    assert deadline.left() <= 1


def test_a_deadline_that_has_not_begun_has_no_time_left() -> None:
    assert Deadline().left() == 0
