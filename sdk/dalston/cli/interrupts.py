"""Ctrl-C while modules are loaded: nothing has begun that were to be ended, so the command leaves at once and is quiet.

The usual exception would show where in an import it came, or be lost in a callback of the import.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """SIGINT ends the process with 130 while the block runs, unless something else was decided about it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    except ValueError:  # This is not the main thread, which alone is interrupted.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
