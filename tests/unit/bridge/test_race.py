import asyncio

import pytest

from bridge.race import first_close_reason
from edge.closing import COMPLETED, DISCONNECTED


async def test_the_first_close_reason_counts_after_the_others_are_cancelled():
    cancelled = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cancelled.append(True)

    async def soon():
        await asyncio.sleep(0)
        return COMPLETED

    assert await first_close_reason(forever(), soon(), forever()) is COMPLETED
    assert cancelled == [True, True]


async def test_of_two_close_reasons_at_once_the_one_named_first_counts():
    async def end(close_reason):
        return close_reason

    assert await first_close_reason(end(None), end(COMPLETED), end(DISCONNECTED)) is COMPLETED


async def test_a_side_without_a_close_reason_does_not_end_the_others():
    async def nothing():
        return None

    async def later():
        await asyncio.sleep(0.01)
        return DISCONNECTED

    assert await first_close_reason(nothing(), later()) is DISCONNECTED


async def test_no_close_reason_at_all_is_an_error():
    async def nothing():
        return None

    with pytest.raises(RuntimeError):
        await first_close_reason(nothing())


async def test_a_failure_is_raised_and_the_others_are_cancelled():
    async def fail():
        raise ValueError

    async def forever():
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        await first_close_reason(forever(), fail())


async def test_a_side_that_its_callee_cancelled_has_no_close_reason():
    async def cancelled():
        raise asyncio.CancelledError

    async def later():
        await asyncio.sleep(0.01)
        return COMPLETED

    assert await first_close_reason(cancelled(), later()) is COMPLETED
