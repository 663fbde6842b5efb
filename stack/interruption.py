"""Ctrl-C and SIGTERM end the waiting for a step: nothing is stopped in the middle of a step."""

import contextlib
import signal
import time
from types import FrameType, TracebackType
from typing import Self

from stack.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SLICE_SECONDS = 0.1


class Interruption:
    """Takes over the signals while the block runs.

    The first makes `pause` raise Interrupted, so that what was started is stopped in order. The next kills every child
    process, so that the shutdown has nothing left to wait for.
    """

    def __init__(self) -> None:
        self._asked = False
        self._restore: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._restore[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._restore.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself returned

    def pause(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            Interrupted: a signal has arrived, now or earlier.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self._asked:
                raise Interrupted("stopped by a signal")
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_SECONDS))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            kill_children()
        self._asked = True


def kill_children() -> None:
    """Kills every process below this one."""
    import psutil  # here, because it is slow, and the handlers are installed before anything else is imported

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
