"""What the steps of stopping have left."""

import pytest

from telemetry.deadline import Deadline


def test_what_is_kept_for_later_steps_is_not_for_this_one() -> None:
    deadline = Deadline()
    deadline.begin(10)
    assert deadline.left() == pytest.approx(10, abs=0.1)
    assert deadline.left(4) == pytest.approx(6, abs=0.1)
    assert deadline.left(11) == 0


def test_only_its_first_beginning_counts() -> None:
    deadline = Deadline()
    deadline.begin(1)
    deadline.begin(100)
    assert deadline.left() <= 1


def test_nothing_is_left_of_one_that_has_not_begun() -> None:
    assert Deadline().left() == 0
