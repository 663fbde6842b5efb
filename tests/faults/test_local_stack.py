"""The local stack survives the death of each of its parts, and so does a stream of the SDK."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dalston import Acknowledged, AsyncClient, Ended, Event, Reconnecting, Resumed, SessionBegan
from dalston.options import Transport

from stack.ports import free_port
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack
from tests.conftest import SCRIPTED_PROGRAMS
from tests.faults import pattern
from tests.faults.figures import FIGURES
from tests.faults.test_sdk_resume import joined_audio, stored

CHUNK_SECONDS = 0.1
PARTS = ("seaweedfs", "postgres", "server", "worker", "bridge", "envoy")


@contextmanager
def own_stack(home: Path) -> Iterator[Stack]:
    settings = StackSettings(home=home, port=free_port(), database_url=None, s3_endpoint_url=None, s3_bucket=None)
    with running_stack(settings, programs=SCRIPTED_PROGRAMS) as stack:
        yield stack


class Speaker:
    """Audio at its pace, until `end` is called."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.is_over = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = int(CHUNK_SECONDS * pattern.BYTES_PER_SECOND)
        while not self.is_over:
            yield pattern.audio(1, self.sent_bytes, size)
            self.sent_bytes += size
            await asyncio.sleep(CHUNK_SECONDS)


async def tend(stack: Stack) -> None:
    """Starts the stack as `make up` does."""
    while True:
        stack.check()
        await asyncio.sleep(0.2)


class Listener:
    """What the client receives."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_connected = False
        self.received = 0.0

    def receive(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, SessionBegan | Resumed | Reconnecting):
            self.is_connected = not isinstance(event, Reconnecting)
        if isinstance(event, Acknowledged):
            self.received = event.received

    async def goes_on(self) -> None:
        """Waits until two seconds more have been recorded."""
        async with asyncio.timeout(60):
            while not self.is_connected:  # noqa: ASYNC110 - set by the events of the stream
                await asyncio.sleep(0.05)
            start = self.received
            while not (self.is_connected and self.received > start + 2):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def kill_each(stack: Stack, listener: Listener) -> None:
    for part in PARTS:
        await listener.goes_on()
        process = next(process for process in stack.processes if process.name == part)
        process.popen.send_signal(signal.SIGKILL)
        async with asyncio.timeout(60):
            while not stack.keeper.all_ready or process in stack.processes:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        FIGURES.add("parts of the local stack killed and started again")
    await listener.goes_on()


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("transport", ["grpc", "websocket"])
async def test_a_stream_survives_the_death_of_every_part(tmp_path: Path, transport: Transport) -> None:
    speaker, listener = Speaker(), Listener()
    with own_stack(tmp_path) as stack:
        tending = asyncio.create_task(tend(stack))
        async with AsyncClient(stack.base_url, timeout=60) as client:
            stream = client.transcribe(
                speaker,
                encoding="pcm_s16le",
                sample_rate=16_000,
                store_audio=True,
                store_transcript=True,
                language="en",
                transport=transport,
            )
            killing = asyncio.create_task(kill_each(stack, listener))
            killing.add_done_callback(lambda _: setattr(speaker, "is_over", True))
            async with stream:
                async for event in stream:
                    listener.receive(event)
            await killing
            ended = listener.events[-1]
            assert isinstance(ended, Ended)
            assert len(ended.session_ids) > 1
            await stored(client, ended.session_ids)
            recorded = await joined_audio(client, ended.session_ids)
            assert len(recorded) == speaker.sent_bytes
            assert pattern.disagreement(1, recorded) is None
            assert not tending.done()
        tending.cancel()
        await asyncio.wait({tending})
    FIGURES.add("bytes compared", len(recorded))
