"""How far a session has come, for another that goes on from there. Pure; times are seconds of its audio."""

from collections import deque
from typing import Final

# An utterance that ends so near to the end of the audio was not ended by a pause: the shortest lasts as long.
_CUT_SECONDS: Final = 0.05


class ResumePoint:
    """Follows what is recognised and said. Its answers never decrease."""

    def __init__(self) -> None:
        self._processed = 0.0
        self._finals: deque[tuple[float, float]] = deque()

    def add_final(self, start: float, end: float) -> None:
        """A final was recorded, or an utterance has none. They come in order: all that was said before is recorded."""
        self._finals.append((start, end))
        self.processed(end)

    def processed(self, seconds: float) -> None:
        """Whatever was said before has been recorded."""
        self._processed = max(self._processed, seconds)

    def seconds(self, received: float, stored: float | None = None) -> float:
        """The latest point before which all is said, and at which no utterance is cut.

        An utterance that was ended by the end of the audio may go on in the audio to come: the point is before it.

        Args:
            received: length of the audio so far.
            stored: the point must not be later, wherever that leads; None if there is no such limit.
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
