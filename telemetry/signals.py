"""SIGTERM and SIGINT: they end a process that starts, shut down one that serves, and end one that is shutting down.

A shutdown that takes too long is cut short.
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
_LOG_SECONDS = 0.2


def exit_on_signals() -> None:
    """Makes either signal end the process at once, with exit code 0: for a process that is still starting.

    Nothing is flushed or awaited. The kernel's default is not enough: it does not end process 1 of a container.
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

    # Not the loop's own handlers: the loop may be busy.
    for number in _SIGNALS:
        signal.signal(number, ask)
    return stop


class LastResort:
    """Ends the process some time after `begin` if it still runs: nothing is flushed or awaited.

    Only native code that holds the GIL can delay that.
    """

    def __init__(self, code: Callable[[], int]) -> None:
        self._seconds = 0.0
        self._code = code
        self._begun = threading.Event()
        # A thread, because the loop may be blocked. It starts now: a signal handler must not start it.
        threading.Thread(target=self._run, name="last resort", daemon=True).start()

    def begin(self, seconds: float) -> None:
        """Ends the process in so many seconds. Only the first call counts."""
        if not self._begun.is_set():
            self._seconds = seconds
            self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        time.sleep(self._seconds)
        # The process may hang because nothing reads its log.
        threading.Thread(target=_log_timeout, daemon=True).start()
        time.sleep(_LOG_SECONDS)
        os._exit(self._code())


def _log_timeout() -> None:
    log.warning("shutdown takes too long: the process ends now")


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
