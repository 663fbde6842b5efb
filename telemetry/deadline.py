"""The moment by which a process that stops is gone."""

import time


class Deadline:
    """Shared by all steps of stopping: each gets what those before it have left."""

    def __init__(self) -> None:
        self._end: float | None = None

    def begin(self, seconds: float) -> None:
        """Everything is to be over in so many seconds. The first call counts."""
        if self._end is None:
            self._end = time.monotonic() + seconds

    def left(self, kept_seconds: float = 0.0) -> float:
        """Seconds that a step may take, so that `kept_seconds` are left for those after it; 0 if it has not begun."""
        return 0.0 if self._end is None else max(0.0, self._end - kept_seconds - time.monotonic())
