"""Whether the model has time for partials. Pure."""

LATE_SECONDS = 0.5
"""Finals that wait this long for the model on average leave no time for partials."""
_WEIGHT = 0.3
"""Of the latest final in the average."""
_FORGET_SECONDS = 3.0
"""What was measured counts half after this time: partials are tried again when there was no final for a while."""


class Pace:
    """Follows how long finals wait for the model."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._noted = 0.0

    def note(self, wait: float, now: float) -> None:
        """A final's batch begins after it has waited `wait` seconds for its turn. `now`: any clock, in seconds."""
        before = self._wait_at(now)
        self._wait, self._noted = before + _WEIGHT * (wait - before), now

    def has_time_for_partials(self, now: float) -> bool:
        return self._wait_at(now) < LATE_SECONDS

    def _wait_at(self, now: float) -> float:
        return float(self._wait * 0.5 ** ((now - self._noted) / _FORGET_SECONDS)) if self._wait else 0.0
