"""A moving average of queue delays. Pure."""

_WEIGHT = 0.3
"""Weight of the latest delay in the average."""
_FORGET_SECONDS = 3.0
"""Half-life of the average: without new delays it decays."""


class MovingDelay:
    """A moving average in which the latest delays count most, and which decays with time."""

    def __init__(self) -> None:
        self._average = 0.0
        self._noted = 0.0

    def note(self, seconds: float, now: float) -> None:
        """Adds a delay to the average. `now`: any clock, in seconds."""
        self._average, self._noted = self.with_one_more(seconds, now), now

    def with_one_more(self, seconds: float, now: float) -> float:
        """The average as it would be with another delay."""
        before = self.at(now)
        return before + _WEIGHT * (seconds - before)

    def at(self, now: float) -> float:
        """The average, in seconds."""
        return float(self._average * 0.5 ** ((now - self._noted) / _FORGET_SECONDS)) if self._average else 0.0
