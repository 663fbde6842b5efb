"""Tasks that run in the background of a process while a block runs."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from telemetry.logs import get_logger

log = get_logger(__name__)


@asynccontextmanager
async def running(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Runs `work` as a task while the block runs, then cancels it and waits for it."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _log_failure(task: asyncio.Task[None]) -> None:
    """Logs the failure of a background task at once, because nothing awaits the task."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a background task of persistence has failed", task=task.get_name(), exc_info=error)
