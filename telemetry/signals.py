"""SIGTERM and SIGINT: the first asks the process to stop in order, the second ends it."""

import asyncio
import os
import signal
from types import FrameType


def stop_on_signals() -> asyncio.Event:
    """An event that the first signal sets; the next one ends the process at once, with nothing flushed or awaited."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # No handler of the loop's, which may be busy. The kernel's default will not do: process 1 of a container
            # is spared by it.
            signal.signal(number, _exit)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    return stop


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
