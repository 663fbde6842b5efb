"""The deadline of a graceful shutdown."""

import time


class Deadline:
    """Shared by all steps of a shutdown: each gets the time that the steps before it have left."""

    def __init__(self) -> None:
        self._end: float | None = None

    def begin(self, seconds: float) -> None:
        """Sets the deadline to so many seconds from now. Only the first call counts."""
        if self._end is None:
            self._end = time.monotonic() + seconds

    def left(self, kept_seconds: float = 0.0) -> float:
        """Seconds that a step may take, so that `kept_seconds` are left for those after it; 0 if it has not begun."""
        return 0.0 if self._end is None else max(0.0, self._end - kept_seconds - time.monotonic())
