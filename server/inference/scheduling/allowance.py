"""The share of the model's time that partials may take. Pure."""

SAVED_SECONDS = 0.5
"""The most time that is saved up for later: a few passes over an utterance that has begun."""

MAX_WAIT_SECONDS = 2.0
"""The longest wait, whatever was spent: a slow model sends partials all the same."""
_MIN_WAIT_SECONDS = 0.001
"""Shorter waits count as none."""


class Allowance:
    """A share of the time, on average.

    It is exceeded only by work that takes so long that the share would allow less than one in `MAX_WAIT_SECONDS`. `now`
    is any clock, in seconds.
    """

    def __init__(self, share: float) -> None:
        """`share`: of the time, above 0; with 1 there is no limit."""
        self._share = share
        self._left = SAVED_SECONDS
        self._at = 0.0

    def spend(self, seconds: float, now: float) -> None:
        """Spends time. Work that has begun is finished, so it may leave a debt, which is bounded."""
        self._left, self._at = max(self._left_at(now) - seconds, -self._share * MAX_WAIT_SECONDS), now

    def wait(self, now: float) -> float:
        """Seconds until there is time left; 0 if there is now."""
        seconds = -self._left_at(now) / self._share
        return seconds if self._share < 1 and seconds > _MIN_WAIT_SECONDS else 0.0

    def _left_at(self, now: float) -> float:
        return min(SAVED_SECONDS, self._left + self._share * max(0.0, now - self._at))
