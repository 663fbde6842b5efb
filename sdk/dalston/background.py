"""One event loop on a background thread, on which the synchronous client runs the asynchronous one."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.RLock()  # Reentrant: a signal handler may run while it is held.
_loop: asyncio.AbstractEventLoop | None = None
_is_exiting = False
_closing: set[asyncio.Task[None]] = set()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on that loop and waits for its result; an interrupted wait cancels it.

    Raises:
        RuntimeError: the caller runs on the thread of that loop.
    """
    loop = _running_loop()
    if loop is _current_loop():
        coroutine.close()
        raise RuntimeError("the synchronous client cannot be used inside its own event loop")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def call_soon(callback: Any, *args: Any) -> None:
    """Schedules a function on that loop without waiting for it."""
    _running_loop().call_soon_threadsafe(callback, *args)


def iterate(items: AsyncIterator[T]) -> Generator[T, None, None]:
    """Turns an asynchronous iterator into a synchronous one; closing one closes the other."""
    end: Any = object()

    async def following() -> T:
        return await anext(items, end)

    try:
        while (item := run(following())) is not end:
            yield item
    finally:
        if isinstance(items, AsyncGenerator) and not _is_exiting:
            _finish(items)


def _finish(items: AsyncGenerator[Any, None]) -> None:
    loop = _running_loop()
    if loop is _current_loop():  # The garbage collector may run on any thread.
        _closing.add(task := loop.create_task(_close(items)))
        task.add_done_callback(_closing.discard)
    else:
        run(_close(items))


async def _close(items: AsyncGenerator[Any, None]) -> None:
    with suppress(RuntimeError):  # Its last step was cancelled while it ran.
        await items.aclose()


def _reset_after_fork() -> None:
    """Discards the loop in a forked child, which lacks the loop's thread."""
    global _loop, _lock
    _loop, _lock = None, threading.RLock()


def _exit() -> None:
    """Notes that the interpreter exits: the daemon thread will not run again, so nothing may wait for it."""
    global _is_exiting
    _is_exiting = True


atexit.register(_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _current_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None or not _loop.is_running():
            loop = asyncio.new_event_loop()
            started = threading.Event()
            loop.call_soon(started.set)
            threading.Thread(target=loop.run_forever, name="dalston", daemon=True).start()
            started.wait()
            _loop = loop
        return _loop
