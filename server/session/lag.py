"""How long a session waits for its text. Pure."""

from collections.abc import Callable


class Lag:
    """Follows the utterances that one session has handed over and that are not answered yet.

    What counts is how long the next of them has been the next: an utterance that waits for others of its own session,
    as most do when a recording is sent faster than it was spoken, is not late. `now` is any clock, in seconds.
    """

    def __init__(self, note: Callable[[float], None] = lambda _seconds: None) -> None:
        """`note` is told of each answer how long it took."""
        self._note = note
        self._unanswered = 0
        self._since = 0.0

    def handed_over(self, now: float) -> None:
        """An utterance has ended and is to be transcribed."""
        if not self._unanswered:
            self._since = now
        self._unanswered += 1

    def answered(self, now: float) -> None:
        """One of them was answered, or failed, or was dropped."""
        self._note(now - self._since)
        self._unanswered -= 1
        self._since = now

    def at(self, now: float) -> float:
        """How long the next one has been waited for, in seconds; 0 if there is none."""
        return now - self._since if self._unanswered else 0.0
