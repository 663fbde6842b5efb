"""Waits for the first of several coroutines that may end a connection."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from edge.closing import CloseReason


async def first_close_reason(*sides: Coroutine[Any, Any, CloseReason | None]) -> CloseReason:
    """Runs all sides at once until one returns a close reason; the others are cancelled and awaited.

    A side that returns None has finished, and the others continue. Of two that finish together, the one named first
    counts.

    Raises:
        ExceptionGroup: a side failed.
        RuntimeError: no side returned a close reason.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(side) for side in sides]
        pending = set(tasks)
        while pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled() and (close_reason := task.result()) is not None:
                    for other in pending:
                        other.cancel()
                    return close_reason
    raise RuntimeError("nothing ended the connection")
