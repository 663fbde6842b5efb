"""Repeated admission of long calls, whose key may be revoked or expire meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from domain.credentials import Authorization
from domain.errors import StorageUnavailable
from server.access.errors import AccessError
from server.access.gate import Gate

READMIT_SECONDS: Final = 5.0


@asynccontextmanager
async def while_admitted(gate: Gate, method: str, authorization: Authorization) -> AsyncIterator[None]:
    """Cancels the block when its caller would not be admitted any more, which is checked every 5 s.

    Raises:
        Unauthenticated, PermissionDenied: the key was revoked, has expired or has lost the scope.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - coroutines run in tasks
    refusals: list[AccessError] = []

    async def check() -> None:
        while not refusals:
            await asyncio.sleep(READMIT_SECONDS)
            try:
                await gate.readmit(method, authorization)
            except StorageUnavailable:
                continue  # the next check decides
            except AccessError as refusal:
                refusals.append(refusal)
                task.cancel()

    checking = asyncio.create_task(check(), name="readmission of a call")
    try:
        yield
    except asyncio.CancelledError:
        if refusals and task.uncancel() == 0:
            raise refusals[0] from None
        raise
    finally:
        checking.cancel()
