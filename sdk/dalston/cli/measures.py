"""Parses and formats times, durations and sizes. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from dalston.cli.exits import usage

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNITS = ("kB", "MB", "GB", "TB")


def parse_time(text: str | None) -> datetime | None:
    """Parses a time or an age; a time without a zone is local time.

    Raises:
        CommandError: the text is neither.
    """
    if text is None:
        return None
    try:
        if age := re.fullmatch(r"(\d{1,9})([smhd])", text):
            return datetime.now().astimezone() - timedelta(seconds=int(age[1]) * _AGES[age[2]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise usage(f"{text!r} is not a time: use 2026-05-01, 2026-05-01T09:30, 30m, 12h or 7d") from None


def clock(seconds: float) -> str:
    """Formats a duration as a player does: 0:07, 12:05, 4:00:00."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def length(seconds: float) -> str:
    """Formats a duration: `7.0 s`, and from one minute on as `clock` does."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def size(count: int) -> str:
    """Formats a size: `812 bytes`, `938.6 kB`."""
    if count < 1000:
        return f"{count} bytes"
    amount, units = count / 1000, list(_UNITS)
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.1f} {units[0]}"
