"""Floods by callers without a key, while a tenant streams speech and others come and go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dalston
import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr
from websockets.asyncio.client import connect

from persistence.config import PersistenceSettings
from persistence.postgres.api_keys import KeyStore
from persistence.postgres.database import open_database
from persistence.postgres.tenants import TenantStore
from stack.supervisor import Stack
from tests.faults.fault_server import CYCLE_BYTES
from tests.faults.figures import FIGURES
from tests.faults.http2 import RawHttp2
from tests.faults.pattern import BYTES_PER_SECOND, audio

TAG: Final = 5
PIECE: Final = BYTES_PER_SECOND // 10
ENVOY_MIB: Final = 640
"""The most that Envoy may have, whatever comes: `Endpoints.heap_bytes`, and what it has before."""
BRIDGE_MIB: Final = 256
HANDSHAKE: Final = (
    b"GET /v1/audio/transcriptions/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

Flood = Callable[[Stack, threading.Event], int]
"""Runs until it is stopped; returns how many operations it did."""


def header_bombs(stack: Stack, stop: threading.Event) -> int:
    """A header of 3,400 bytes sent once and named 18 times in each of 1000 streams, on 24 connections at a time."""
    targets = [
        ("/v1/realtime/sessions", "", None),
        ("/dalston.v1.SessionService/ListSessions", "application/grpc", None),
        ("/dalston.v1.TranscriptionService/Transcribe", "application/grpc", 0),
        # Answers that are never taken.
        ("/nothing", "", 0),
        ("/a%2Fb", "", 0),
    ]
    held: deque[RawHttp2] = deque()
    streams = 0
    while not stop.is_set():
        path, kind, window = targets[len(held) % len(targets)]
        with contextlib.suppress(OSError):
            connection = RawHttp2(stack.port, window=window)
            held.append(connection)
            connection.open_streams(path, 1000, size=3400, times=18, content_type=kind)
            streams += 1000
        if len(held) > 48:
            held.popleft().close()
        # What 24 connections at once cost is one burst. More than so many a second is a matter of processors.
        stop.wait(0.005 if len(held) < 24 else 0.2)
    for connection in held:
        connection.close()
    return streams


def refused_websockets(stack: Stack, stop: threading.Event) -> int:
    """260 connections a second without a key that do not answer the close."""
    held: deque[socket.socket] = deque()
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", stack.port), 5)
            held.append(connection)
            connection.sendall(HANDSHAKE)
            count += 1
        # Fewer than one address may have open.
        if len(held) > 900:
            held.popleft().close()
        stop.wait(1 / 260)
    for connection in held:
        connection.close()
    return count


def long_paths(stack: Stack, stop: threading.Event) -> int:
    """Paths of 60 KB, as fast as they are answered."""
    count = 0
    request = b"GET /" + b"x" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", stack.port), 5) as connection:
            while not stop.is_set():
                connection.sendall(request)
                if not connection.recv(65536):
                    break
                count += 1
    return count


def reflection(stack: Stack, stop: threading.Event) -> int:
    """Questions of reflection in streams without end, each begun again when it is refused."""
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="dalston.v1.TranscriptionService")
    asked = 0

    def questions() -> Iterator[Any]:
        nonlocal asked
        while not stop.is_set():
            asked += 1
            yield question

    with grpc.insecure_channel(stack.grpc_target) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        while not stop.is_set():
            with contextlib.suppress(grpc.RpcError):
                for _ in ask(questions(), timeout=10):
                    pass
    return asked


@dataclass
class Seen:
    """The effect of a flood on other clients."""

    finals: list[str] = field(default_factory=list)
    reconnected: int = 0
    latest: float = 0.0
    """Seconds from when the last byte of an utterance was sent to its final."""
    turned_away: list[str] = field(default_factory=list)
    visits: int = 0
    slowest: float = 0.0
    """Seconds from the beginning of a visit to its end."""
    megabytes: dict[str, int] = field(default_factory=dict)
    """The most that each process had."""


@pytest.mark.parametrize("flood", [header_bombs, refused_websockets, long_paths, reflection])
@pytest.mark.parametrize("seconds", [pytest.param(6, id="short"), pytest.param(60, id="long", marks=pytest.mark.long)])
@pytest.mark.timeout(180)
async def test_a_flood_without_a_key_disturbs_no_tenant(keyed_stack: Stack, flood: Flood, seconds: int) -> None:
    key = await a_tenant(keyed_stack, f"flooded-{flood.__name__}-{seconds}")
    log = keyed_stack.home.log("access")
    before = log.stat().st_size if log.exists() else 0
    used = cpu_seconds(keyed_stack, "server")
    stop, seen = threading.Event(), Seen()
    watched = asyncio.create_task(watch_memory(keyed_stack, seen))
    flooding = asyncio.create_task(asyncio.to_thread(flood, keyed_stack, stop))
    visiting = asyncio.create_task(visit(keyed_stack, key, seen))
    try:
        await speak(keyed_stack, key, seconds, seen)
    finally:
        stop.set()
        times = await flooding
        for task in (watched, visiting):
            task.cancel()
        await asyncio.gather(watched, visiting, return_exceptions=True)
    used = cpu_seconds(keyed_stack, "server") - used
    logged = log.stat().st_size - before
    FIGURES.note(
        f"{flood.__name__}, {seconds} s: {times:,} times; Envoy {seen.megabytes['envoy']} MiB, bridge "
        f"{seen.megabytes['bridge']} MiB at most; server {used / seconds:.0%} busy; access log {logged >> 10:,} KiB; "
        f"finals {len(seen.finals)}, the latest after {seen.latest:.1f} s; {seen.visits} visits, "
        f"the slowest {seen.slowest:.1f} s, {len(seen.turned_away)} turned away"
    )
    assert len(seen.finals) == -(-seconds * BYTES_PER_SECOND // CYCLE_BYTES), seen.finals
    assert are_contiguous(seen.finals)
    assert seen.reconnected == 0
    assert seen.turned_away == []
    assert used / seconds < 0.5, "the server works for callers without a key"
    assert seen.visits > 0
    assert seen.megabytes["envoy"] < ENVOY_MIB
    assert seen.megabytes["bridge"] < BRIDGE_MIB
    assert max(len(line) for line in log.read_bytes().splitlines()) < 1024


async def a_tenant(stack: Stack, name: str) -> str:
    settings = PersistenceSettings(database_url=SecretStr(stack.database_url))
    async with open_database(settings) as database:
        tenant = await TenantStore(database).ensure(name, {})
        _, secret = await KeyStore(database).create(tenant.id, "test", ("realtime", "sessions:read"))
    return secret


async def speak(stack: Stack, key: str, seconds: int, seen: Seen) -> None:
    """Streams the pattern through the SDK, as fast as it would be spoken."""
    began = time.monotonic()

    async def spoken() -> AsyncIterator[bytes]:
        for number in range(seconds * 10):
            await asyncio.sleep(max(0.0, began + number / 10 - time.monotonic()))
            yield audio(TAG, number * PIECE, PIECE)

    async with dalston.AsyncClient(stack.base_url, key, timeout=30) as client:
        options: dict[str, Any] = {"language": "en", "store_transcript": True, "encoding": "pcm_s16le"}
        async with client.transcribe(spoken(), **options) as stream:
            async for event in stream:
                if isinstance(event, dalston.FinalResult):
                    seen.finals.append(event.text)
                    seen.latest = max(seen.latest, time.monotonic() - began - event.end)
                seen.reconnected += isinstance(event, dalston.Reconnecting)


def are_contiguous(finals: list[str]) -> bool:
    """Whether each final begins where its cycle of speech and silence does, or a little before, and none is missing."""
    starts = [int(text.split()[3]) for text in finals]
    return all(abs(later - number * CYCLE_BYTES) < CYCLE_BYTES // 2 for number, later in enumerate(starts))


async def visit(stack: Stack, key: str, seen: Seen) -> None:
    """A client comes every half second, over REST and over WebSocket in turns, and must be admitted."""
    headers = {"authorization": f"Bearer {key}"}
    while True:
        await asyncio.sleep(0.25)
        began = time.monotonic()
        try:
            async with asyncio.timeout(10):
                if seen.visits % 2:
                    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                        answer = await http.get(f"{stack.base_url}/v1/realtime/sessions", headers=headers)
                        response = f"{answer.status_code}"
                    if response != "200":
                        seen.turned_away.append(response)
                else:
                    url = f"{stack.ws_url}/v1/audio/transcriptions/stream"
                    async with connect(url, proxy=None, additional_headers=headers) as stream:
                        response = str(await stream.recv())
                        if "session.begin" not in response:
                            seen.turned_away.append(response)
                        await stream.send('{"type":"end"}')
                        async for _ in stream:
                            pass
        except Exception as error:
            seen.turned_away.append(repr(error))
        seen.visits += 1
        seen.slowest = max(seen.slowest, time.monotonic() - began)


def process_id(stack: Stack, name: str) -> int:
    return next(each.popen.pid for each in stack.processes if each.name.lower() == name)


async def watch_memory(stack: Stack, seen: Seen) -> None:
    while True:
        for name in ("envoy", "bridge"):
            seen.megabytes[name] = max(seen.megabytes.get(name, 0), megabytes(stack, name))
        await asyncio.sleep(0.1)


def megabytes(stack: Stack, name: str) -> int:
    """The memory of a process."""
    status = Path(f"/proc/{process_id(stack, name)}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) >> 10


def cpu_seconds(stack: Stack, name: str) -> float:
    """The processor time that a process has used so far."""
    fields = Path(f"/proc/{process_id(stack, name)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
