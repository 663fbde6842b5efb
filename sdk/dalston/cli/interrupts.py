"""Ctrl-C during imports: no work has begun that must be cleaned up, so the process exits at once and prints nothing.

The usual KeyboardInterrupt would print a traceback of the import, or be lost in one of its callbacks.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def exiting_at_once() -> Iterator[None]:
    """While the block runs, SIGINT ends the process with exit code 130, unless another handler is installed."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    except ValueError:  # Only the main thread receives signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
