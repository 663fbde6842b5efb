"""A Postgres that a test stops and starts again."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

from stack.postgres import PostgresServer, postgres
from tests.faults.proxy import Proxy


class OwnPostgres:
    """A Postgres server that can be stopped and started, always behind the same port of a proxy."""

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self._folder = folder
        self._proxy = proxy
        self._stack = ExitStack()

    def start(self) -> PostgresServer:
        self.server = self._stack.enter_context(postgres(self._folder, durable=True))
        self._proxy.target = ("127.0.0.1", self.server.port)
        return self.server

    async def stop(self, number: signal.Signals) -> None:
        """Stops it: with SIGINT fast, with SIGQUIT immediately, as after a crash."""
        self.server.process.popen.send_signal(number)
        async with asyncio.timeout(30):
            while self.server.process.exit_code() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def close(self) -> None:
        self._stack.close()
