"""Times, lengths and sizes, from and for people. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from dalston.cli.exits import usage

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNITS = ("kB", "MB", "GB", "TB")


def parse_time(text: str | None) -> datetime | None:
    """A point in time as a person writes it; without a zone it is local.

    Raises:
        CommandError: it is none.
    """
    if text is None:
        return None
    try:
        if age := re.fullmatch(r"(\d{1,9})([smhd])", text):
            return datetime.now().astimezone() - timedelta(seconds=int(age[1]) * _AGES[age[2]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise usage(f"{text!r} is no time: write 2026-05-01, 2026-05-01T09:30 or 30m, 12h, 7d") from None


def clock(seconds: float) -> str:
    """As a player shows it: 0:07, 12:05, 4:00:00."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def length(seconds: float) -> str:
    """`7.0 s`, and as on a clock from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def size(count: int) -> str:
    """`812 bytes`, `938.6 kB`."""
    if count < 1000:
        return f"{count} bytes"
    amount, units = count / 1000, list(_UNITS)
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.1f} {units[0]}"
