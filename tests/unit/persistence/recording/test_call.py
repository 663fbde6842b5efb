"""One recorded call, without a transport."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from domain.session import EndReason
from persistence.recording.call import RecordedCall


async def test_a_call_that_has_ended_cannot_be_ended_again() -> None:
    """Otherwise the grace period would keep the call and cut it a minute later."""

    async def servicer(requests: AsyncIterator[Any], _: Any) -> None:
        async for _request in requests:
            pass

    async def no_requests() -> AsyncIterator[Any]:
        return
        yield

    context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1", invocation_metadata=lambda: ())
    pipeline: Any = SimpleNamespace()
    call = RecordedCall(
        servicer,
        context,
        pipeline,
        lambda _: EndReason("error"),
        store_wait_seconds=0.0,
        vanished_grace_seconds=0.0,
    )
    call.start_reading(no_requests())
    await call.run()
    assert not call.end(RuntimeError("the session was ended on request"), 60.0)
    assert call._ending is None
