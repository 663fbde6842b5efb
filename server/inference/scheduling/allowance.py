"""How much of its time the model may give to what only helps to wait. Pure."""

SAVED_SECONDS = 0.5
"""The most that is saved up for later: a few tries of an utterance that has begun."""

MOST_SECONDS = 2.0
"""The longest that is waited, whatever was spent: a model that is slow tells something all the same."""
_MOMENT = 0.001
"""Nothing is waited for less."""


class Allowance:
    """A share of the time, in the long run; more only of what takes so long that its share were less than one in
    `MOST_SECONDS`. `now` is any clock, in seconds."""

    def __init__(self, share: float) -> None:
        """`share`: of the time, above 0; with 1 there is always some left."""
        self._share = share
        self._left = SAVED_SECONDS
        self._at = 0.0

    def spend(self, seconds: float, now: float) -> None:
        """Something took so long. What is begun is finished: it may leave a debt, but no large one."""
        self._left, self._at = max(self._left_at(now) - seconds, -self._share * MOST_SECONDS), now

    def wait(self, now: float) -> float:
        """In how many seconds there is some left; 0 if there is now."""
        seconds = -self._left_at(now) / self._share
        return seconds if self._share < 1 and seconds > _MOMENT else 0.0

    def _left_at(self, now: float) -> float:
        return min(SAVED_SECONDS, self._left + self._share * max(0.0, now - self._at))
