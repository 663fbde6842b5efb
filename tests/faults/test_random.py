"""Two hundred sessions of random faults; then nothing is lost and nothing is left over."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from stack.postgres import PostgresServer
from stack.settings import ROOT
from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy, always, every_third
from tests.faults.load import FAST
from tests.faults.proxy import Proxy
from tests.faults.scenario import LEASE_SECONDS, Expected, Scenario
from tests.faults.servers import ServerProcess, a_server

AT_ONCE = 12


class Chaos:
    """Sessions begin and end on a server that fails all the time."""

    def __init__(self, scenario: Scenario, postgres: Proxy, s3: HttpProxy) -> None:
        self._scenario = scenario
        self._postgres = postgres
        self._s3 = s3
        self.spool = scenario.new_spool()
        self._server: ServerProcess | None = None
        self._life = AsyncExitStack()
        self.expected: list[Expected] = []
        self.begun = 0

    async def start(self) -> None:
        environment = self._scenario.environment(
            self.spool, postgres_port=self._postgres.port, s3_port=self._s3.port, shutdown_seconds=1
        )
        self._server = await self._life.enter_async_context(a_server(environment, self._scenario.folder / "server.log"))

    async def stop(self) -> None:
        await self._life.aclose()

    async def sessions(self, count: int) -> None:
        """Runs so many sessions, some at once, whatever happens to the server meanwhile."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(tag: int) -> None:
            async with slots:
                while not await self._session(tag):  # noqa: ASYNC110
                    await asyncio.sleep(0.3)

        await asyncio.gather(*(one(tag) for tag in range(1, count + 1)))

    async def _session(self, tag: int) -> bool:
        """Returns False if no session could be begun."""
        server = self._server
        if server is None or server.process.exit_code() is not None:
            return False
        client = PatternClient(
            server.channel(),
            tag,
            speed=random.choice([1.0, 4.0, FAST]),
            store_audio=random.random() < 0.9,
            store_transcript=random.random() < 0.9,
        )
        try:
            async with asyncio.timeout(10):
                await client.begin()
        except (grpc.aio.AioRpcError, TimeoutError, asyncio.CancelledError, AssertionError):
            await client.close()
            return False
        self.begun += 1
        try:
            await client.stream(random.uniform(0.2, 8))
            end_reason = random.choice(["end", "end", "cancel", "half-close"])
            if end_reason == "cancel":
                client.vanish()
            elif end_reason == "half-close" and client.is_open:
                await client.call.done_writing()
            elif client.is_open:
                await client.write_end()
            await client.closed(60)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        finally:
            self.expected.append(Expected.of(client))
            await client.close()
        return True

    async def faults(self) -> None:
        """Causes one fault after another until cancelled."""
        choices: list[Callable[[], Awaitable[None]]] = [self._kill, self._kill, self._deploy, self._cut, self._bad_s3]
        while True:
            await asyncio.sleep(random.uniform(0.5, 3))
            fault = random.choice(choices)
            FIGURES.add("random faults")
            await fault()

    async def _kill(self) -> None:
        assert self._server is not None
        await self._server.kill()
        FIGURES.add("kills survived")
        await self.start()

    async def _deploy(self) -> None:
        assert self._server is not None
        self._server.send(signal.SIGTERM)
        await self._server.exit(60)
        await self.start()

    async def _cut(self) -> None:
        self._postgres.cut()
        self._postgres.cut_on(random.choice([b"COMMIT", b"UPDATE", b"INSERT"]), before=random.random() < 0.5)

    async def _bad_s3(self) -> None:
        fate = random.choice([Fate.FAIL, Fate.FAIL_AFTER, Fate.LOSE, Fate.REFUSE])
        self._s3.rule = random.choice([always, every_third])(fate)
        await asyncio.sleep(random.uniform(1, 5))
        self._s3.restore()


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_after_random_faults_nothing_is_lost_and_nothing_left(
    scenario: Scenario, template_server: PostgresServer, postgres_proxy: Proxy, s3_http: HttpProxy
) -> None:
    chaos = Chaos(scenario, postgres_proxy, s3_http)
    await chaos.start()
    try:
        faults = asyncio.create_task(chaos.faults())
        sessions = asyncio.create_task(chaos.sessions(200))
        await asyncio.wait({faults, sessions}, return_when=asyncio.FIRST_COMPLETED)
        faults.cancel()
        await asyncio.wait({faults})
        if not faults.cancelled():
            faults.result()
        await sessions
        postgres_proxy.restore()
        s3_http.restore()
        await chaos.stop()
        await chaos.start()
        await scenario.settled(LEASE_SECONDS * 2 + 60)
        FIGURES.add("sessions of random faults", chaos.begun)
        await scenario.compare(chaos.expected, statuses=("completed", "interrupted", "error"))
        await scenario.until_nothing_is_left(chaos.spool)
        await verify(scenario, chaos.spool)
    finally:
        await chaos.stop()


async def verify(scenario: Scenario, spool: Path) -> None:
    """Checks that `dalston sessions verify` finds nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "persistence.verify",
        cwd=ROOT,
        env=scenario.program_environment(spool),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
