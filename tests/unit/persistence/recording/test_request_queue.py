"""The queue between recording and recognition."""

import asyncio
import os
import threading
import tracemalloc

import pytest
from dalston.v1.transcription_pb2 import TranscribeControl, TranscribeRequest

from domain.audio_message import AudioFault, Checked
from domain.errors import StorageUnavailable
from persistence.recording.request_queue import Request, RequestQueue


def audio(number: int, size: int = 1000) -> Request:
    return Checked(TranscribeRequest(audio=bytes([number]) * size))


async def test_requests_are_returned_in_order_until_the_queue_ends() -> None:
    queue = RequestQueue(10_000)
    for number in range(3):
        await queue.put(audio(number))
    queue.end()
    assert [request async for request in queue] == [audio(number) for number in range(3)]
    assert await anext(queue, None) is None


async def test_the_result_of_the_check_is_handed_on() -> None:
    queue = RequestQueue(10_000)
    await queue.put(Checked(TranscribeRequest(audio=b"odd"), AudioFault.PARTIAL_FRAME))
    assert (await anext(queue)).fault is AudioFault.PARTIAL_FRAME


async def test_a_put_waits_while_the_queue_is_full() -> None:
    queue = RequestQueue(2000)
    await queue.put(audio(1))
    await queue.put(audio(2))
    waiting = asyncio.create_task(queue.put(audio(3)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await anext(queue)
    await waiting


async def test_a_request_larger_than_the_limit_is_added_to_an_empty_queue() -> None:
    queue = RequestQueue(10)
    await queue.put(audio(1))
    assert await anext(queue) == audio(1)


async def test_cancelling_anext_loses_no_request() -> None:
    queue = RequestQueue(10_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(queue)
    await queue.put(audio(7))
    assert await anext(queue) == audio(7)


async def test_an_error_is_raised_after_the_requests_before_it() -> None:
    queue = RequestQueue(10_000)
    await queue.put(audio(1))
    queue.end(ValueError("bad message"))
    queue.end()
    assert await anext(queue) == audio(1)
    with pytest.raises(ValueError, match="bad message"):
        await anext(queue)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_put_that_waits_when_the_queue_ends_adds_its_request(is_cancelled: bool) -> None:
    queue = RequestQueue(10)
    await queue.put(audio(1))
    waiting = asyncio.create_task(queue.put(audio(2)))
    await asyncio.sleep(0)
    queue.end()
    if is_cancelled:
        waiting.cancel()
    await asyncio.wait({waiting})
    assert [request async for request in queue] == [audio(1), audio(2)]


class Disk:
    """Recorded audio that can be read back, and the offset from which it is kept."""

    def __init__(self) -> None:
        self.audio = b""
        self.kept_from: int | None = None
        self.let_read = threading.Event()
        self.let_read.set()

    def read_audio(self, offset: int, size: int) -> bytes:
        self.let_read.wait(5)
        assert self.kept_from is not None
        assert self.kept_from <= offset
        assert offset + size <= len(self.audio)
        return self.audio[offset : offset + size]

    def keep_from(self, offset: int | None) -> None:
        self.kept_from = offset


class Recorded:
    """A queue whose audio is recorded first, as by `RequestReader`."""

    def __init__(self, limit_bytes: int) -> None:
        self.disk = Disk()
        self.queue = RequestQueue(limit_bytes)
        self.queue.recorded = self.disk

    async def send(self, data: bytes) -> None:
        offset = len(self.disk.audio)
        self.disk.audio += data
        await self.queue.put(Checked(TranscribeRequest(audio=data)), offset)

    async def rest(self) -> list[TranscribeRequest]:
        self.queue.end()
        return [request.message async for request in self.queue]


FLUSH = Checked(TranscribeRequest(control=TranscribeControl(flush=TranscribeControl.Flush())))


async def test_recorded_audio_past_the_limit_never_waits_and_is_read_back() -> None:
    recorded = Recorded(10_000)
    async with asyncio.timeout(5):
        for _ in range(300):
            await recorded.send(os.urandom(3200))
    assert recorded.disk.kept_from == 4 * 3200
    requests = await recorded.rest()
    assert b"".join(request.audio for request in requests) == recorded.disk.audio
    assert max(len(request.audio) for request in requests) == 65_536
    assert recorded.disk.kept_from is None


async def test_memory_is_bounded_however_much_audio_waits() -> None:
    recorded = Recorded(100_000)
    await recorded.send(bytes(65_536))
    await recorded.send(bytes(65_536))
    tracemalloc.start()
    for offset in range(131_072, 10**9, 65_536):
        await recorded.queue.put(Checked(TranscribeRequest(audio=b"")), offset)
        if offset > 1e8:
            break
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 600_000


async def test_controls_keep_their_order_among_audio_that_is_read_back() -> None:
    recorded = Recorded(1000)
    received, flushes = b"", []
    for number in range(20):
        await recorded.send(bytes([number]) * 1000)
        if number % 3 == 2:
            flushes.append(len(recorded.disk.audio))
            await recorded.queue.put(FLUSH)
    for request in await recorded.rest():
        if request.HasField("control"):
            assert len(received) == flushes.pop(0)
        received += request.audio
    assert received == recorded.disk.audio
    assert flushes == []


async def test_a_flood_of_controls_waits_for_room() -> None:
    recorded = Recorded(1000)
    await recorded.send(bytes(1000))
    put = 0

    async def flood() -> None:
        nonlocal put
        while True:
            await recorded.queue.put(FLUSH)
            put += 1

    # A put that finds room does not yield to the event loop: without backpressure the flood would run forever.
    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.01)
    assert 0 < put < 10_000
    assert not flooding.done()
    flooding.cancel()
    await asyncio.wait([flooding])


async def test_audio_stays_in_memory_again_once_recognition_has_caught_up() -> None:
    recorded = Recorded(5000)
    for _ in range(10):
        await recorded.send(os.urandom(1000))
    for _ in range(6):
        await anext(recorded.queue)
    assert recorded.disk.kept_from is None
    await recorded.send(b"after")
    assert recorded.disk.kept_from is None
    assert (await anext(recorded.queue)).message.audio == b"after"


async def test_cancelling_a_read_from_disk_loses_no_request() -> None:
    recorded = Recorded(1)
    await recorded.send(b"first")
    await recorded.send(b"second")
    await anext(recorded.queue)
    recorded.disk.let_read.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await anext(recorded.queue)
    await recorded.send(b"third")
    recorded.disk.let_read.set()
    assert b"".join(request.audio for request in await recorded.rest()) == b"secondthird"


async def test_a_closed_queue_keeps_no_audio_on_disk() -> None:
    recorded = Recorded(1)
    await recorded.send(b"first")
    await recorded.send(b"second")
    recorded.queue.close()
    assert recorded.disk.kept_from is None


async def test_a_disk_that_cannot_be_read_ends_the_session_as_unavailable() -> None:
    class Broken(Disk):
        def read_audio(self, offset: int, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    recorded = Recorded(1)
    recorded.queue.recorded = recorded.disk = Broken()
    await recorded.send(b"first")
    await recorded.send(b"second")
    await anext(recorded.queue)
    with pytest.raises(StorageUnavailable):
        await anext(recorded.queue)
