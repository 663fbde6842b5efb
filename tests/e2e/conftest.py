"""Fixtures of the end-to-end tests: the sample recording and a client."""

import io
import json
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import grpc
import httpx
import numpy as np
import pytest
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from stack.supervisor import Stack
from tests.e2e.harness import EVERYTHING, STORED, Harness, bearer, until

SAMPLES = Path(__file__).parents[2] / "samples"
PATH = "/v1/audio/transcriptions/stream"


@dataclass(frozen=True)
class Sample:
    """A recording and its text."""

    pcm: np.ndarray
    text: str
    rate: int = 16_000

    @property
    def seconds(self) -> float:
        return len(self.pcm) / self.rate


@pytest.fixture(scope="session")
def sample() -> Sample:
    pcm, rate = soundfile.read(SAMPLES / "sense-and-sensibility.flac", dtype="int16")
    assert rate == 16_000
    return Sample(pcm, (SAMPLES / "sense-and-sensibility.txt").read_text())


@dataclass
class Outcome:
    """All messages of a WebSocket, and how it closed."""

    messages: list[dict[str, Any]]
    close_code: int | None
    close_reason: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (message,) = self.of(kind)
        return message


class Client:
    """A client of the WebSocket and REST interfaces of a running stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.http = httpx.AsyncClient(base_url=stack.base_url, timeout=20)

    def open(self, query: str = "", **parameters: Any) -> connect:
        # The proxy settings of a library are not for loopback.
        return connect(f"{self.stack.ws_url}{PATH}?{query or urlencode(parameters)}", proxy=None, max_size=None)

    async def transcribe(self, *frames: bytes | str, end: bool = True, **parameters: Any) -> Outcome:
        async with self.open(**parameters) as socket:
            messages = [json.loads(await socket.recv())]
            return await self.talk(socket, messages, *frames, *(['{"type":"end"}'] if end else []))

    async def talk(self, socket: ClientConnection, messages: list[dict[str, Any]], *frames: bytes | str) -> Outcome:
        """Sends frames, then reads until the socket is closed."""
        try:
            for frame in frames:
                await socket.send(frame)
        except ConnectionClosed:
            pass
        try:
            while True:
                messages.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            return Outcome(messages, socket.close_code, socket.close_reason or "")


@pytest.fixture(scope="session")
async def client(stack: Stack) -> Any:
    client = Client(stack)
    async with client.http:
        yield client


def audio_bytes(wav: bytes) -> bytes:
    """The samples of a 16-bit PCM file."""
    with wave.open(io.BytesIO(wav)) as file:
        return file.readframes(file.getnframes())


def chunks(data: bytes, size: int = 3200) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.fixture(scope="module")
async def harness(keyed_stack: Stack) -> AsyncIterator[Harness]:
    async with (
        httpx.AsyncClient(base_url=keyed_stack.base_url, timeout=20, trust_env=False) as http,
        grpc.aio.insecure_channel(keyed_stack.grpc_target) as channel,
    ):
        database = await asyncpg.connect(keyed_stack.database_url)
        harness = Harness(keyed_stack, http, channel, database)
        harness.admin = await harness.make_tenant("acme", *EVERYTHING, requests_per_second=1000)
        harness.key = (await harness.make_key("realtime"))["key"]["id"]
        for state in ("completed", "deleted"):
            _, messages = await harness.socket(STORED, **bearer(harness.admin))
            harness.sessions[state] = messages[-1]["session_id"]
        gone = await http.delete(f"/v1/realtime/sessions/{harness.sessions['deleted']}", headers=bearer(harness.admin))
        assert gone.status_code == 200
        for state, frame in (("error", b"abc"), ("interrupted", None)):
            async with harness.connect(STORED, harness.admin) as socket:
                harness.sessions[state] = json.loads(await socket.recv())["session_id"]
                await (socket.send(frame) if frame else socket.close())
                await socket.wait_closed()
        async with harness.connect(STORED, harness.admin) as socket:
            harness.sessions["active"] = json.loads(await socket.recv())["session_id"]
            await until(harness.are_in_their_states)
            enhance = f"/v1/realtime/sessions/{harness.sessions['completed']}/enhance"
            made = await http.post(enhance, headers=bearer(harness.admin))
            harness.job = made.json()["id"]
            canceled = await http.delete(f"/v1/jobs/{harness.job}", headers=bearer(harness.admin))
            assert canceled.json()["status"] == "canceled"
            yield harness
        await database.close()
