"""How late things are of late. Pure."""

_WEIGHT = 0.3
"""Of the latest in the average."""
_FORGET_SECONDS = 3.0
"""What was noted counts half after this time: where nothing happens, nothing is late."""


class MovingDelay:
    """An average of waits, in which the latest count most, and which is forgotten."""

    def __init__(self) -> None:
        self._average = 0.0
        self._noted = 0.0

    def note(self, seconds: float, now: float) -> None:
        """Something had to wait so long. `now`: any clock, in seconds."""
        self._average, self._noted = self.with_one_more(seconds, now), now

    def with_one_more(self, seconds: float, now: float) -> float:
        """What the average would be if that were noted."""
        before = self.at(now)
        return before + _WEIGHT * (seconds - before)

    def at(self, now: float) -> float:
        """The average, in seconds."""
        return float(self._average * 0.5 ** ((now - self._noted) / _FORGET_SECONDS)) if self._average else 0.0
