"""How long a session waits for its text. Pure."""

from collections.abc import Callable


class Lag:
    """Follows the utterances of one session that are handed over for transcription and not answered yet.

    The lag is how long the next utterance has been the next one: an utterance that waits for others of its own session,
    as most do when a recording is sent faster than real time, is not late. `now` is any clock, in seconds.
    """

    def __init__(self, observe: Callable[[float], None] = lambda _seconds: None) -> None:
        """`observe` is called with the lag of each answer, in seconds."""
        self._observe = observe
        self._unanswered = 0
        self._since = 0.0

    def handed_over(self, now: float) -> None:
        """Notes that an utterance was handed over for transcription."""
        if not self._unanswered:
            self._since = now
        self._unanswered += 1

    def answered(self, now: float) -> None:
        """Notes that an utterance was transcribed, has failed or was dropped."""
        self._observe(now - self._since)
        self._unanswered -= 1
        self._since = now

    def at(self, now: float) -> float:
        """How long the session has waited for the next text, in seconds; 0 if it waits for none."""
        return now - self._since if self._unanswered else 0.0
