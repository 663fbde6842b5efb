"""The process of the models as a thread of the test, so that the test can look at its recognizer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from worker.model.child import serve
from worker.model.process import Child, Start


class ThreadChild:
    """Serves a recognizer over the same connection as a process does."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.pid = os.getpid()
        self.connection, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, args=(load,), name="model")
        self._thread.start()

    def _serve(self, load: Callable[[], Any]) -> None:
        with self._theirs:
            serve(self._theirs, load)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)

    async def wait(self) -> str:
        await asyncio.to_thread(self._thread.join)
        return "end of the thread"


def starting_threads(load: Callable[[], Any]) -> Start:
    def start() -> Child:
        return ThreadChild(load)

    return start
