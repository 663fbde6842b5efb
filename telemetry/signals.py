"""SIGTERM and SIGINT, which end a process that starts, ask one that serves to stop, and end one that is stopping.

One that does not come to its end ends all the same.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from telemetry.logs import get_logger

log = get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TELL_SECONDS = 0.2


def exit_on_signals() -> None:
    """Lets either signal end the process at once, with exit code 0: for one that has only begun to start.

    Nothing is flushed or awaited. The kernel's default will not do: process 1 of a container is spared by it.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: os._exit(0))


def stop_on_signals(at_once: Callable[[], None] = lambda: None) -> asyncio.Event:
    """An event that the first signal sets; the next one ends the process at once, with nothing flushed or awaited.

    Args:
        at_once: called by the first signal even while the loop is busy; it must not wait for anything.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, _exit)
        at_once()
        loop.call_soon_threadsafe(stop.set)

    # No handlers of the loop's, which may be busy.
    for number in _SIGNALS:
        signal.signal(number, ask)
    return stop


class LastResort:
    """Ends the process some time after `begin` if it is still there: nothing is flushed or awaited.

    Only native code that keeps the interpreter to itself can hold that up.
    """

    def __init__(self, code: Callable[[], int]) -> None:
        self._seconds = 0.0
        self._code = code
        self._begun = threading.Event()
        # A thread, for what holds the process up may hold its loop up; started now, for a signal must not start one.
        threading.Thread(target=self._run, name="last resort", daemon=True).start()

    def begin(self, seconds: float) -> None:
        """The process ends in so many seconds. The first call counts."""
        if not self._begun.is_set():
            self._seconds = seconds
            self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        time.sleep(self._seconds)
        # Whoever reads the log may be what it hangs on.
        threading.Thread(target=_tell, daemon=True).start()
        time.sleep(_TELL_SECONDS)
        os._exit(self._code())


def _tell() -> None:
    log.warning("stopping takes too long: the process ends where it stands")


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
