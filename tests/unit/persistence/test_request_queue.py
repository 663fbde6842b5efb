"""The queue between recording and recognition."""

import asyncio

import pytest
from dalston.v1.transcription_pb2 import TranscribeRequest

from persistence.request_queue import RequestQueue


def audio(number: int, size: int = 1000) -> TranscribeRequest:
    return TranscribeRequest(audio=bytes([number]) * size)


async def test_requests_come_out_in_order_and_then_it_ends() -> None:
    queue = RequestQueue(10_000)
    for number in range(3):
        await queue.put(audio(number))
    queue.end()
    assert [request async for request in queue] == [audio(number) for number in range(3)]
    assert await anext(queue, None) is None


async def test_a_full_queue_holds_its_writer_until_there_is_room() -> None:
    queue = RequestQueue(2000)
    await queue.put(audio(1))
    await queue.put(audio(2))
    waiting = asyncio.create_task(queue.put(audio(3)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await anext(queue)
    await waiting


async def test_a_request_larger_than_the_queue_passes() -> None:
    queue = RequestQueue(10)
    await queue.put(audio(1))
    assert await anext(queue) == audio(1)


async def test_leaving_anext_by_a_timeout_loses_nothing() -> None:
    queue = RequestQueue(10_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(queue)
    await queue.put(audio(7))
    assert await anext(queue) == audio(7)


async def test_an_error_comes_after_the_requests_before_it() -> None:
    queue = RequestQueue(10_000)
    await queue.put(audio(1))
    queue.end(ValueError("bad message"))
    queue.end()
    assert await anext(queue) == audio(1)
    with pytest.raises(ValueError, match="bad message"):
        await anext(queue)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_writer_that_waits_when_it_ends_still_adds_its_request(is_cancelled: bool) -> None:
    queue = RequestQueue(10)
    await queue.put(audio(1))
    waiting = asyncio.create_task(queue.put(audio(2)))
    await asyncio.sleep(0)
    queue.end()
    if is_cancelled:
        waiting.cancel()
    await asyncio.wait({waiting})
    assert [request async for request in queue] == [audio(1), audio(2)]
