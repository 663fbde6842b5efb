"""Times, durations and sizes."""

import pytest
from dalston.cli.exits import CommandError
from dalston.cli.measures import clock, length, parse_time, size


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.0 s"), (7.04, "7.0 s"), (60.0, "1:00"), (725.9, "12:05"), (14_400.0, "4:00:00")]
)
def test_duration_is_shown_in_readable_form(seconds: float, shown: str) -> None:
    assert length(seconds) == shown


def test_clock_has_no_tenths() -> None:
    assert [clock(seconds) for seconds in (0, 7.9, 61, 3600)] == ["0:00", "0:07", "1:01", "1:00:00"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (938_640, "938.6 kB"), (999_960, "1.0 MB"), (3 * 10**15, "3000.0 TB")],
)
def test_size_is_shown_in_a_fitting_unit(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize("text", ["yesterday", "5x", "999999999d", "2026-13-01", ""])
def test_malformed_time_is_rejected(text: str) -> None:
    with pytest.raises(CommandError, match="is not a time"):
        parse_time(text)
