"""Calls that last, and a key that ends meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from domain.errors import StorageUnavailable
from server.access.errors import AccessError
from server.access.gate import Gate

READMIT_SECONDS: Final = 5.0


@asynccontextmanager
async def while_admitted(gate: Gate, method: str, authorization: list[str]) -> AsyncIterator[None]:
    """Ends the block as soon as its caller would be refused, which is asked every 5 s.

    Raises:
        Unauthenticated, PermissionDenied: the key is not good any more.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - coroutines run in tasks
    refusals: list[AccessError] = []

    async def ask() -> None:
        while not refusals:
            await asyncio.sleep(READMIT_SECONDS)
            try:
                await gate.readmit(method, authorization)
            except StorageUnavailable:
                continue  # nobody can tell now
            except AccessError as refusal:
                refusals.append(refusal)
                task.cancel()

    asking = asyncio.create_task(ask(), name="whether a call may go on")
    try:
        yield
    except asyncio.CancelledError:
        if refusals and task.uncancel() == 0:
            raise refusals[0] from None
        raise
    finally:
        asking.cancel()
