"""Two servers with one Postgres and one bucket behind one Envoy, with TLS and keys: one is lost, and the other
continues."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from dalston import AsyncClient, Ended, Event, FinalResult, Resumed, SessionBegan, Warned
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bridge.protocols.native.protocol import PATH as STREAM_PATH
from stack.envoy import Certificate, Endpoints, envoy
from stack.ports import free_port
from stack.process import running
from stack.settings import ROOT
from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.pattern import BYTES_PER_SECOND, audio, disagreement
from tests.faults.scenario import Scenario, read_wav
from tests.faults.servers import ServerProcess, a_server
from tests.integration.envoy.certificates import make_certificate

SESSIONS = "/v1/realtime/sessions"
TAG = 5
SECONDS = 30
PIECE = 3200
FINAL = re.compile(rf"tag {TAG} bytes (\d+) to (\d+)")
STORED = {"store_audio": True, "store_transcript": True}


@dataclass
class Fleet:
    """The servers, and the one address of both."""

    scenario: Scenario
    port: int
    certificate: Certificate
    key: str
    servers: dict[Path, ServerProcess] = field(default_factory=dict)
    """By spool."""

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate.chain))

    def channel(self) -> grpc.aio.Channel:
        """Opens a connection that sends the key."""
        secure = grpc.ssl_channel_credentials(self.certificate.chain.read_bytes())
        shown = grpc.access_token_call_credentials(self.key)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        credentials = grpc.composite_channel_credentials(secure, shown)
        return grpc.aio.secure_channel(f"localhost:{self.port}", credentials, options=options)

    def client(self) -> AsyncClient:
        return AsyncClient(f"https://localhost:{self.port}", self.key, ca_file=self.certificate.chain, timeout=60)

    def websocket(self, **parameters: str) -> connect:
        query = "&".join(
            f"{name}={value}"
            for name, value in ({"store_audio": "true", "store_transcript": "true"} | parameters).items()
        )
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"wss://localhost:{self.port}{STREAM_PATH}?{query}"
        return connect(url, ssl=self.tls, proxy=None, additional_headers=headers)

    def home_of(self, session_id: str) -> Path:
        """The spool of the server that runs a session."""
        (spool,) = (each for each in self.servers if list(each.glob(f"*/{session_id}")))
        return spool

    async def get(self, path: str) -> httpx.Response:
        """Requests a path by REST."""
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(verify=self.tls, trust_env=False, timeout=30) as http:
            return await http.get(f"https://localhost:{self.port}{path}", headers=headers)

    async def served(self) -> None:
        """Waits until Envoy knows of servers and a bridge that serve; a bridge wants more than a GET."""
        async with asyncio.timeout(30):
            for path, code in ((SESSIONS, 200), (STREAM_PATH, 426)):
                while (answer := await self.get(path)).status_code != code:
                    assert answer.status_code == 503, answer.text
                    await asyncio.sleep(0.2)

    async def linked(self, session_id: str) -> bytes:
        """The joined recording."""
        await self.scenario.settled()
        answer = await self.get(f"{SESSIONS}/{session_id}/audio?linked=true")
        assert answer.status_code == 200, answer.text
        return read_wav(answer.content)


async def make_key(scenario: Scenario) -> str:
    words = ("create-key", "--tenant", "fleet", "--name", "test", "--scopes", "realtime,sessions:read", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "persistence.access",
        *words,
        env=scenario.program_environment(scenario.folder),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return str(json.loads(out)["secret"])


@asynccontextmanager
async def a_fleet(scenario: Scenario) -> AsyncIterator[Fleet]:
    certificate = make_certificate(scenario.folder, 1)
    async with AsyncExitStack() as parts:
        spools = [scenario.new_spool() for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            making = group.create_task(make_key(scenario))
            starting = [
                group.create_task(
                    parts.enter_async_context(
                        a_server(scenario.environment(spool, auth="keys"), scenario.folder / f"server-{number}.log")
                    )
                )
                for number, spool in enumerate(spools)
            ]
        servers = dict(zip(spools, (each.result() for each in starting), strict=True))
        fleet = Fleet(scenario, free_port(), certificate, making.result(), servers)
        one, other = fleet.servers.values()
        bridge = {
            "DALSTON_SERVER_TARGET": f"ipv4:{one.address},{other.address}",
            "DALSTON_BRIDGE_PORT": str(bridge_port := free_port()),
            "DALSTON_AUTH": "keys",
        }
        command = [sys.executable, "-m", "bridge"]
        log = scenario.folder / "bridge.log"
        parts.enter_context(running("bridge", command, log=log, env={**os.environ, **bridge}, cwd=ROOT, stop=()))
        endpoints = Endpoints(
            ["127.0.0.1"],
            fleet.port,
            one.port,
            bridge_port,
            more_servers=[("127.0.0.1", other.port)],
            certificate=certificate,
        )
        parts.enter_context(envoy(scenario.folder / "envoy", endpoints))
        await fleet.served()
        yield fleet


@pytest.fixture
async def fleet(scenario: Scenario) -> AsyncIterator[Fleet]:
    async with a_fleet(scenario) as fleet:
        yield fleet


def is_source(data: bytes, seconds: float) -> bool:
    return len(data) == round(seconds * BYTES_PER_SECOND) and disagreement(TAG, data) is None


@pytest.mark.timeout(180)
async def test_a_grpc_session_is_resumed_on_the_other_server(fleet: Fleet) -> None:
    first = PatternClient(fleet.channel(), TAG)
    await first.begin()
    home = fleet.home_of(first.session_id)
    await first.send(4 * BYTES_PER_SECOND)
    await first.flush()
    # It still runs, and takes no more.
    fleet.servers[home].send(signal.SIGTERM)
    async with asyncio.timeout(20):
        while first.terminating is None:  # noqa: ASYNC110 - the client has no event for it
            await asyncio.sleep(0.05)
    first.vanish()
    second = PatternClient(fleet.channel(), TAG)
    await resumed(second, first)
    assert fleet.home_of(second.session_id) != home
    await second.send(6 * BYTES_PER_SECOND - second.first_byte)
    await second.finish()
    assert is_source(await fleet.linked(second.session_id), 6)
    await first.close()
    await second.close()


async def resumed(client: PatternClient, previous: PatternClient) -> None:
    """Resumes as soon as the server that owned the earlier session has ended it."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.resume(previous)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE):
                    raise
            await asyncio.sleep(0.3)


@pytest.mark.timeout(180)
async def test_a_websocket_session_is_resumed_on_the_other_server(fleet: Fleet) -> None:
    async with fleet.websocket() as socket:
        first = json.loads(await socket.recv())["session_id"]
        home = fleet.home_of(first)
        for start in range(0, 4 * BYTES_PER_SECOND, PIECE):
            await socket.send(audio(TAG, start, PIECE))
        await socket.send('{"type":"flush"}')
        await until(socket, "flushed")
        fleet.servers[home].send(signal.SIGTERM)
        await until(socket, "session.terminating")
    begin, socket = await resumed_by_websocket(fleet, first)
    assert fleet.home_of(begin["session_id"]) != home
    async with socket:
        for start in range(round(begin["resume_from_seconds"] * BYTES_PER_SECOND), 6 * BYTES_PER_SECOND, PIECE):
            await socket.send(audio(TAG, start, min(PIECE, 6 * BYTES_PER_SECOND - start)))
        await socket.send('{"type":"end"}')
        await until(socket, "session.end")
    assert is_source(await fleet.linked(begin["session_id"]), 6)


async def until(socket: Any, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["type"] == kind:
                return message


async def resumed_by_websocket(fleet: Fleet, previous: str) -> tuple[dict[str, Any], Any]:
    async with asyncio.timeout(30):
        while True:
            socket = await fleet.websocket(resume_session_id=previous)
            try:
                message = json.loads(await socket.recv())
            except ConnectionClosed:
                continue
            if message["type"] == "session.begin":
                return message, socket
            assert message["recoverable"] is True or message["code"] == "session_active", message
            await socket.close()
            await asyncio.sleep(0.3)


def pieces() -> Iterator[bytes]:
    for start in range(0, SECONDS * BYTES_PER_SECOND, PIECE):
        yield audio(TAG, start, PIECE)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("transport", ["grpc", "websocket"])
async def test_the_sdk_streams_on_while_a_server_is_killed(fleet: Fleet, transport: str) -> None:
    events: list[Event] = []
    home: Path | None = None
    homes: list[Path] = []
    async with (
        fleet.client() as client,
        client.transcribe(pieces(), pace=2.0, transport=transport, **STORED) as stream,  # type: ignore[arg-type]
    ):
        async for event in stream:
            events.append(event)
            if isinstance(event, SessionBegan):
                home = fleet.home_of(event.session_id)
            if isinstance(event, Resumed):
                homes.append(fleet.home_of(event.session_id))
            if home is not None and isinstance(event, FinalResult) and event.end > SECONDS / 3:
                await fleet.servers[home].kill()
                FIGURES.add("kills survived")
                homes, home = [home], None
        ended = events[-1]
        assert isinstance(ended, Ended)
        killed, other = homes
        assert killed != other
        assert not [event for event in events if isinstance(event, Warned) and event.code == "session_replaced"]
        assert ended.duration == pytest.approx(SECONDS)
        assert not fault_in([(each.text, each.start, each.end) for each in events if isinstance(each, FinalResult)])
        assert is_source(await fleet.linked(ended.session_id), SECONDS)
        # Finals of the last second were on the killed server's disk alone; it comes back with them.
        async with a_server(fleet.scenario.environment(killed, auth="keys"), fleet.scenario.folder / "again.log"):
            problem = "not asked"
            for _ in range(60):
                if not (problem := fault_in(await utterances(client, ended))):
                    break
                await asyncio.sleep(0.5)
        assert not problem
    FIGURES.add("bytes compared", SECONDS * BYTES_PER_SECOND)


async def utterances(client: AsyncClient, ended: Ended) -> list[tuple[str, float, float]]:
    """The finals in the joined transcript of the sessions, with their times."""
    kept = await client.sessions.transcript(ended.session_id, linked=True)
    return [(each.text, each.start, each.end) for each in kept.utterances]


def fault_in(finals: list[tuple[str, float, float]]) -> str:
    """Where the finals do not cover all speech of the source once, in order, at the times of the source."""
    last = 0.0
    for text, start, end in finals:
        found = FINAL.fullmatch(text)
        if found is None or abs(int(found[2]) / BYTES_PER_SECOND - end) > 0.3:
            return f"{text!r} does not end at {end}"
        # The silence between two sessions may belong to the last final of one and the first of the other.
        if not last - 0.5 < start < last + 1.0:
            return f"{text!r} begins at {start}, and the one before ends at {last}"
        last = end
    return "" if last > SECONDS - 1.5 else f"the last ends at {last}"
