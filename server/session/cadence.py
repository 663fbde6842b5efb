"""When to listen to an utterance that goes on. Pure."""

from server.audio.decoder import MODEL_RATE

FIRST_SECONDS = 0.2
"""Of new audio between two tries, until there is something to tell or the model has no time..."""
SECONDS = 0.5
"""...and from then on. Of tries that wait for the model the newest takes the place of the one before."""
_HASTE = 0.5
"""Audio that comes faster than it is spoken is tried no more often than at this share of the interval in real time."""


class Cadence:
    """One session's tries. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._interval = FIRST_SECONDS
        self._tried_until: int | None = None
        self._tried_at = float("-inf")

    def begin(self) -> None:
        """Another utterance: it is tried at once."""
        self._tried_until, self._interval = None, FIRST_SECONDS

    def is_due(self, end: int, now: float) -> bool:
        """Whether to try what was heard up to sample `end`."""
        if now - self._tried_at < self._interval * _HASTE:
            return False
        return self._tried_until is None or end - self._tried_until >= self._interval * MODEL_RATE

    def tried(self, end: int, now: float) -> None:
        """A try of what was heard up to sample `end` begins."""
        self._tried_until, self._tried_at = end, now

    def slow_down(self) -> None:
        """There was something to tell, or no time for a try."""
        self._interval = SECONDS
