"""The point of a session at which another one can continue it. Pure; times are seconds of its audio."""

from collections import deque
from typing import Final

# An utterance that ends so close to the end of the audio was not ended by a pause: the shortest pause is as long.
_CUT_SECONDS: Final = 0.05


class ResumePoint:
    """Follows the finals and the progress of recognition. The point never decreases."""

    def __init__(self) -> None:
        self._processed = 0.0
        self._finals: deque[tuple[float, float]] = deque()

    def note_utterance(self, start: float, end: float) -> None:
        """Notes an utterance whose final is recorded, or that has none. Utterances come in their order."""
        self._finals.append((start, end))
        self.note_processed(end)

    def note_processed(self, seconds: float) -> None:
        """Notes that all speech before `seconds` is recorded."""
        self._processed = max(self._processed, seconds)

    def seconds(self, received: float, stored: float | None = None) -> float:
        """The latest point before which all speech is in finals, and which is inside of no utterance.

        An utterance that was ended by the end of the audio may continue in the audio to come: the point is before it.

        Args:
            received: length of the audio so far.
            stored: the point must not be later, even if it is then inside of an utterance; None if there is no limit.
        """
        point = self._processed
        if self._finals and self._finals[-1][1] > received - _CUT_SECONDS:
            point = min(point, self._finals[-1][0])
        if stored is not None:
            point = min(point, stored)
        while len(self._finals) > 1 and self._finals[0][1] <= point:
            self._finals.popleft()
        first, end = self._finals[0] if self._finals else (point, point)
        return first if first < point < end else point
