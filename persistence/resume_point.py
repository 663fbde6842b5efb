"""The resume point: where in a session's audio another session can continue it. Pure; times are seconds of audio."""

from collections import deque
from typing import Final

# An utterance that ends this close to the end of the audio was not ended by a pause, because every pause is longer.
_CUT_SECONDS: Final = 0.05


class ResumePoint:
    """Follows the recognition of a session. The resume point never decreases."""

    def __init__(self) -> None:
        self._processed = 0.0
        self._finals: deque[tuple[float, float]] = deque()

    def add_final(self, start: float, end: float) -> None:
        """Adds a recorded final, or an utterance without one. They arrive in order: all earlier speech is recorded."""
        self._finals.append((start, end))
        self.processed(end)

    def processed(self, seconds: float) -> None:
        """Notes that all speech before this time is recorded."""
        self._processed = max(self._processed, seconds)

    def seconds(self, received: float, stored: float | None = None) -> float:
        """The latest point before which all speech is recorded, and which is within no utterance.

        An utterance that was ended by the end of the audio may continue in later audio, so the point is before it.

        Args:
            received: length of the audio so far.
            stored: an upper limit of the point, the length of the stored audio; None without a limit.
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
