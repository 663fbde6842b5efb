import asyncio
from collections.abc import AsyncIterator

import pytest

from persistence.recording.interruptible import Interruptible


class Ended(Exception):
    pass


async def items(*given: int, then: asyncio.Event | None = None) -> AsyncIterator[int]:
    for each in given:
        yield each
    if then is not None:
        await then.wait()
        yield -1


async def test_an_iterator_that_is_not_ended_yields_all_items() -> None:
    assert [each async for each in Interruptible(items(1, 2, 3))] == [1, 2, 3]


async def test_a_waiting_consumer_gets_the_error_at_once() -> None:
    interruptible = Interruptible(items(1, then=asyncio.Event()))
    assert await anext(interruptible) == 1
    waiting = asyncio.create_task(anext(interruptible))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    interruptible.end(Ended())
    with pytest.raises(Ended):
        await asyncio.wait_for(waiting, 5)


async def test_the_first_error_counts_and_no_further_item_is_yielded() -> None:
    interruptible = Interruptible(items(1, 2))
    assert await anext(interruptible) == 1
    interruptible.end(Ended("first"))
    interruptible.end(Ended("second"))
    for _ in range(2):
        with pytest.raises(Ended, match="first"):
            await anext(interruptible)


async def test_a_timeout_of_the_wrapped_iterator_is_raised() -> None:
    async def late() -> AsyncIterator[int]:
        raise TimeoutError("their own")
        yield 1

    with pytest.raises(TimeoutError, match="their own"):
        await anext(Interruptible(late()))
