import asyncio

import pytest

from bridge.closing import COMPLETED, GONE
from bridge.race import first_close_reason


async def test_the_first_ending_counts_and_the_others_are_cancelled_before_it_is_returned():
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


async def test_of_two_endings_at_once_the_one_named_first_counts():
    async def end(close_reason):
        return close_reason

    assert await first_close_reason(end(None), end(COMPLETED), end(GONE)) is COMPLETED


async def test_a_side_without_an_ending_lets_the_others_go_on():
    async def nothing():
        return None

    async def later():
        await asyncio.sleep(0.01)
        return GONE

    assert await first_close_reason(nothing(), later()) is GONE


async def test_no_ending_at_all_is_an_error():
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


async def test_a_side_that_was_cancelled_by_what_it_used_says_nothing():
    async def cancelled():
        raise asyncio.CancelledError

    async def later():
        await asyncio.sleep(0.01)
        return COMPLETED

    assert await first_close_reason(cancelled(), later()) is COMPLETED
