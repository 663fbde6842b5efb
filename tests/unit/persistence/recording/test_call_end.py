"""The decision how a session ended."""

import asyncio

import pytest

from domain.session import EndReason
from persistence.recording.call_end import COMPLETED, DISCONNECTED, STOPPED, CallEnd

FAILED = EndReason("error", "classified")
CANCELLED = asyncio.CancelledError()
FAILURE = ValueError("failed")


@pytest.fixture
def end() -> CallEnd:
    return CallEnd(lambda _: FAILED)


@pytest.mark.parametrize(
    ("closed", "is_disconnected", "error", "expected"),
    [
        ("end", False, None, COMPLETED),
        ("end", True, None, COMPLETED),
        ("end", False, FAILURE, FAILED),
        ("end", True, FAILURE, FAILED),
        ("end", False, CANCELLED, STOPPED),
        ("end", True, CANCELLED, DISCONNECTED),
        ("half-close", False, None, COMPLETED),
        ("half-close", True, None, DISCONNECTED),
        ("half-close", False, FAILURE, FAILED),
        ("half-close", True, FAILURE, DISCONNECTED),
        ("", False, None, COMPLETED),
        ("", True, None, DISCONNECTED),
        ("", False, FAILURE, FAILED),
        ("", True, FAILURE, DISCONNECTED),
        ("", False, CANCELLED, STOPPED),
        ("", True, CANCELLED, DISCONNECTED),
    ],
)
async def test_end_reason(
    end: CallEnd, closed: str, is_disconnected: bool, error: BaseException | None, expected: EndReason
) -> None:
    if closed == "end":
        end.note_end()
    elif closed == "half-close":
        end.note_half_close()
    if is_disconnected:
        end.note_disconnect()
    assert await end.decide(error) == expected


async def test_a_disconnect_right_after_a_half_close_is_no_completion(end: CallEnd) -> None:
    end.note_half_close()
    deciding = asyncio.create_task(end.decide(None))
    await asyncio.sleep(0)
    end.note_disconnect()
    assert await deciding == DISCONNECTED


async def test_a_disconnect_after_the_decision_changes_nothing(end: CallEnd) -> None:
    end.note_half_close()
    assert await end.decide(None) == COMPLETED
    end.note_disconnect()
    assert await end.decide(None) == COMPLETED


async def finished(error: BaseException | None) -> asyncio.Task[None]:
    async def servicer() -> None:
        if error is not None:
            raise error

    task = asyncio.create_task(servicer())
    await asyncio.wait({task})
    return task


@pytest.mark.parametrize("error", [None, FAILURE])
async def test_the_error_of_the_servicer_counts_unless_the_call_was_cut(end: CallEnd, error: Exception | None) -> None:
    assert end.servicer_error(await finished(error)) is error
    end.note_forced(KeyError("lost"))
    assert isinstance(end.servicer_error(await finished(error)), KeyError)


async def test_a_cancelled_servicer_has_an_error(end: CallEnd) -> None:
    assert isinstance(end.servicer_error(await finished(asyncio.CancelledError())), asyncio.CancelledError)


def test_a_client_that_is_connected_receives_an_error_even_for_a_cancellation(end: CallEnd) -> None:
    assert end.client_error(None) is None
    assert end.client_error(FAILURE) is FAILURE
    assert isinstance(end.client_error(CANCELLED), RuntimeError)


def test_a_disconnected_client_receives_the_error_of_a_takeover_only(end: CallEnd) -> None:
    end.note_disconnect()
    assert end.client_error(FAILURE) is None
    end.note_superseded(KeyError("resumed"))
    assert isinstance(end.client_error(None), KeyError)
