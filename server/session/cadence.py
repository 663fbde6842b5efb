"""When to listen to an utterance that goes on. Pure."""

from server.audio.decoder import MODEL_RATE

FIRST_SECONDS = 0.2
"""Of new audio between two tries, until there is something to tell..."""
SECONDS = 0.5
"""...and from then on, if the model answers soon."""
MOST_SECONDS = 2.0
"""The longest: a model that is so busy has more to do than to guess."""
_SHARE = 0.5
"""A try may take this much of the time until the next."""
_HASTE = 0.5
"""Audio that comes faster than it is spoken is tried no more often than at this share of the interval in real time."""


class Cadence:
    """One session's tries. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._interval = SECONDS
        self._tried_until: int | None = None
        self._tried_at = float("-inf")
        self._is_first = True

    def begin(self) -> None:
        """Another utterance: it is tried at once."""
        self._tried_until, self._is_first = None, True

    def is_due(self, end: int, now: float) -> bool:
        """Whether to try what was heard up to sample `end`."""
        interval = self._interval
        if self._is_first:
            interval -= SECONDS - FIRST_SECONDS
        if now - self._tried_at < interval * _HASTE:
            return False
        return self._tried_until is None or end - self._tried_until >= interval * MODEL_RATE

    def tried(self, end: int, now: float) -> None:
        """A try of what was heard up to sample `end` begins."""
        self._tried_until, self._tried_at = end, now

    def told(self) -> None:
        """There was something to tell."""
        self._is_first = False

    def answered(self, seconds: float) -> None:
        """A try took so long, waiting included."""
        self._interval = min(MOST_SECONDS, max(SECONDS, seconds / _SHARE))

    def given_up(self) -> None:
        """A try came to nothing, for want of time."""
        self._interval = MOST_SECONDS
