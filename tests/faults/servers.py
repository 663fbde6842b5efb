"""Server processes that tests kill, stop and pause."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.ports import free_port
from stack.process import Process, running
from stack.settings import ROOT

SCRIPTED: Final = "tests.faults.fault_server"
REAL: Final = "server"
_READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server."""

    process: Process
    port: int
    started: float
    """On the loop's clock."""
    ready_seconds: float
    """From its start until it reported that it serves."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.popen.pid

    def channel(self, port: int | None = None) -> grpc.aio.Channel:
        """Opens a connection, directly or through the port of a proxy."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{port or self.port}", options=options)

    def send(self, number: signal.Signals) -> None:
        self.process.popen.send_signal(number)

    async def kill(self) -> None:
        """Kills it with `kill -9`."""
        self.send(signal.SIGKILL)
        await self.exit(10)

    async def exit(self, seconds: float) -> int:
        """Waits for the process to end by itself; returns its exit code.

        Raises:
            TimeoutError: it is still running.
        """
        async with asyncio.timeout(seconds):
            while (code := self.process.exit_code()) is None:  # noqa: ASYNC110 - Popen has no event
                await asyncio.sleep(0.02)
        return code

    def log_text(self) -> str:
        """The text of its log."""
        with self.process.log.open("rb") as file:
            file.seek(self.process.log_start)
            return file.read().decode(errors="replace")


@asynccontextmanager
async def a_server(
    environment: Mapping[str, str], log: Path, *, program: str = SCRIPTED, wait: bool = True
) -> AsyncIterator[ServerProcess]:
    """Runs a server while the block runs; ready when the block begins, unless `wait` is false.

    Whatever the block does not end itself is killed. It dies with the tests, too.
    """
    port = free_port()
    own = {"DALSTON_SERVER_PORT": str(port), "DALSTON_LOG_FORMAT": "text", "PYTHONUNBUFFERED": "1"}
    loop = asyncio.get_running_loop()
    began = loop.time()
    command = [sys.executable, "-m", program]
    with running("server", command, log=log, env={**os.environ, **environment, **own}, cwd=ROOT, stop=()) as process:
        if wait:
            await _ready(process, port)
        yield ServerProcess(process, port, began, loop.time() - began)


async def _ready(process: Process, port: int) -> None:
    options = [("grpc.max_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1)]
    async with (
        asyncio.timeout(_READY_SECONDS),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
    ):
        while True:
            process.check()
            try:
                health = health_pb2_grpc.HealthStub(channel)
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=1)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.05)
