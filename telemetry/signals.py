"""SIGTERM and SIGINT, which end a process that starts, ask one that serves to stop, and end one that is stopping.

One that does not come to its end ends all the same.
"""

import asyncio
import os
import signal
import threading
from types import FrameType

from telemetry.logs import get_logger

log = get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_signals() -> None:
    """Lets either signal end the process at once, with exit code 0: for one that has only begun to start.

    Nothing is flushed or awaited. The kernel's default will not do: process 1 of a container is spared by it.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: os._exit(0))


def stop_on_signals() -> asyncio.Event:
    """An event that the first signal sets; the next one ends the process at once, with nothing flushed or awaited."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            # No handler of the loop's, which may be busy.
            signal.signal(number, _exit)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, ask)
    return stop


def exit_at_last(seconds: float, code: int) -> None:
    """Ends the process in so many seconds if it is still there, whatever holds it up: nothing is flushed or awaited."""

    def end() -> None:
        log.warning("stopping takes too long: the process ends where it stands")
        os._exit(code)

    # A thread: what holds the process up may hold its loop up.
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
