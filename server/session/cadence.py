"""How often an utterance in progress is transcribed for partials. Pure."""

from server.audio.decoder import MODEL_RATE

FIRST_SECONDS = 0.2
"""New audio between two passes until the first partial is sent or the model has no time..."""
SECONDS = 0.5
"""...and from then on. Of passes that wait for the model the newest replaces the one before."""
_MIN_WALL_TIME_SHARE = 0.5
"""The shortest wall time between two passes, as a share of the interval: audio may arrive faster than real time."""


class Cadence:
    """The passes of one session. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._interval = FIRST_SECONDS
        self._last_end: int | None = None
        self._last_time = float("-inf")

    def start_utterance(self) -> None:
        """Begins another utterance, whose first pass is due at once."""
        self._last_end, self._interval = None, FIRST_SECONDS

    def is_due(self, end: int, now: float) -> bool:
        """Whether a pass over the audio up to sample `end` is due."""
        if now - self._last_time < self._interval * _MIN_WALL_TIME_SHARE:
            return False
        return self._last_end is None or end - self._last_end >= self._interval * MODEL_RATE

    def note_pass(self, end: int, now: float) -> None:
        """Notes that a pass over the audio up to sample `end` begins."""
        self._last_end, self._last_time = end, now

    def slow_down(self) -> None:
        """Lengthens the interval: a partial was sent, or the model had no time for a pass."""
        self._interval = SECONDS
