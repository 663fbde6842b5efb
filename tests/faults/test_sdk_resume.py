"""A caller of the SDK does not notice faults below it: the real server, its models, ten minutes of speech."""

from __future__ import annotations

import asyncio
import io
import random
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import soundfile
from dalston import (
    Acknowledged,
    AsyncClient,
    Ended,
    Event,
    FinalResult,
    Reconnecting,
    Resumed,
    SessionBegan,
    Warned,
)

from stack.settings import ROOT
from tests.faults.figures import FIGURES
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario
from tests.faults.servers import REAL, ServerProcess, a_server
from tests.words import word_error_rate

RATE = 16_000
SECONDS = 600
CUTS = 100
KILLS = 10
OPTIONS: dict[str, Any] = {"store_audio": True, "store_transcript": True, "language": "en"}


@pytest.fixture(scope="module")
def speech() -> bytes:
    """The sample recording, over and over."""
    once: bytes = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16")[0].tobytes()
    return (once * (SECONDS * RATE * 2 // len(once) + 1))[: SECONDS * RATE * 2]


def pieces(speech: bytes) -> Iterator[bytes]:
    for start in range(0, len(speech), 6400):
        yield speech[start : start + 6400]


def frames_of(wav: bytes) -> bytes:
    with wave.open(io.BytesIO(wav)) as file:
        return file.readframes(file.getnframes())


class Serving:
    """A server that can be killed and comes back at the same spool, behind a proxy whose port stays."""

    def __init__(self, scenario: Scenario, weights_cache: Path) -> None:
        self._environment = scenario.environment(scenario.new_spool(), cache_dir=weights_cache)
        self._log = scenario.folder / "server.log"
        self._server: Any = None
        self.process: ServerProcess | None = None
        self.proxy = Proxy("127.0.0.1", 1)

    async def start(self) -> None:
        self._server = a_server(self._environment, self._log, program=REAL)
        self.process = await self._server.__aenter__()
        self.proxy.target = ("127.0.0.1", self.process.port)

    async def stop(self) -> None:
        await self._server.__aexit__(None, None, None)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()
        await self.stop()
        await self.start()


@asynccontextmanager
async def serving(scenario: Scenario, weights_cache: Path) -> AsyncIterator[Serving]:
    server = Serving(scenario, weights_cache)
    async with server.proxy:
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


async def transcribe(
    client: AsyncClient, speech: bytes, breaks: list[float], act: Callable[[], Awaitable[None]]
) -> list[Event]:
    """Transcribes, and acts whenever the service has processed as many seconds of audio as a break states."""
    events: list[Event] = []
    processed, is_connected = 0.0, False
    acting: list[asyncio.Task[None]] = []
    async with client.transcribe(pieces(speech), **OPTIONS) as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, Acknowledged):
                processed = event.processed
            if isinstance(event, SessionBegan | Resumed | Reconnecting):
                is_connected = not isinstance(event, Reconnecting)
            if breaks and processed >= breaks[0] and is_connected and all(task.done() for task in acting):
                breaks.pop(0)
                acting.append(asyncio.create_task(_at_some_moment(act)))
    await asyncio.gather(*acting)
    return events


async def _at_some_moment(act: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(random.uniform(0, 0.3))
    await act()


async def joined_audio(client: AsyncClient, session_ids: tuple[str, ...]) -> bytes:
    """The recordings of the sessions, each up to where the next begins."""
    joined = bytearray()
    base = 0
    for session_id in session_ids:
        session = await client.sessions.get(session_id)
        if session.previous_session_id is not None:
            assert session.resume_from_seconds is not None
            base += round(session.resume_from_seconds * RATE) * 2
        assert base <= len(joined), f"a gap before {session_id}"
        joined[base:] = frames_of(await client.sessions.audio(session_id).read()) if session.audio_uri else b""
    return bytes(joined)


async def stored(client: AsyncClient, session_ids: tuple[str, ...], seconds: float = 90) -> None:
    """Waits until all of them are stored to their end."""
    async with asyncio.timeout(seconds):
        for session_id in session_ids:
            while True:
                session = await client.sessions.get(session_id)
                if session.ended_at and (session.audio_uri or not session.audio_duration_seconds):
                    break
                await asyncio.sleep(0.2)


async def compare(client: AsyncClient, speech: bytes, events: list[Event], uncut: str) -> None:
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert not [event for event in events if isinstance(event, Warned) and event.code == "session_replaced"]
    assert ended.duration == pytest.approx(SECONDS)
    finals = [event for event in events if isinstance(event, FinalResult)]
    for one, other in pairwise(finals):
        assert (one.start + one.end) / 2 < other.start + 0.001 or one.end <= other.end, "finals out of order"
    await stored(client, ended.session_ids)
    assert await joined_audio(client, ended.session_ids) == speech
    linked = await client.sessions.audio(ended.session_id, linked=True).read()
    assert frames_of(linked) == speech
    FIGURES.add("bytes compared", len(speech))
    FIGURES.add("sessions resumed by the SDK", len([event for event in events if isinstance(event, Resumed)]))
    kept = await client.sessions.transcript(ended.session_id, linked=True)
    for which, text in (("final", ended.text), ("kept", kept.text)):
        rate = word_error_rate(uncut, text)
        FIGURES.note(f"words {which} that differ from the uncut run: {rate:.2%} of {len(uncut.split())}")
        assert rate <= 0.02


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_cut_a_hundred_times_and_killed_ten_times(scenario: Scenario, weights_cache: Path, speech: bytes) -> None:
    async with (
        serving(scenario, weights_cache) as server,
        AsyncClient(f"http://{server.proxy.url}", timeout=60) as client,
    ):

        async def nothing() -> None:
            pass

        async def cut() -> None:
            server.proxy.cut()
            FIGURES.add("connections cut under the SDK")

        async def kill() -> None:
            await server.kill()
            FIGURES.add("kills survived")

        took = time.monotonic()
        uncut = (await transcribe(client, speech, [], nothing))[-1]
        assert isinstance(uncut, Ended)
        FIGURES.note(f"ten minutes of speech uncut: {time.monotonic() - took:.0f} s")
        for count, act in ((CUTS, cut), (KILLS, kill)):
            took = time.monotonic()
            breaks = sorted(random.uniform(1, SECONDS - 60) for _ in range(count))
            events = await transcribe(client, speech, breaks, act)
            assert not breaks, f"{len(breaks)} of {count} did not happen"
            attempts = len([event for event in events if isinstance(event, Reconnecting)])
            FIGURES.note(f"{count} times {act.__name__}: {time.monotonic() - took:.0f} s, {attempts} attempts")
            await compare(client, speech, events, uncut.text)
