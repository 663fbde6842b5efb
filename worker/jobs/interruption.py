"""The end of the worker, as its jobs notice it: between two windows, and while they wait."""

import asyncio


class Stopped(Exception):
    """The worker stops: the job is to be queued again."""


class Interruption:
    """Set once, when the worker has to stop. `is_requested` may be read on any thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_requested(self) -> bool:
        """Whether the worker has to stop."""
        return self._event.is_set()

    def request(self) -> None:
        """Stops the worker after the windows in progress."""
        self._event.set()

    def check(self) -> None:
        """Raises Stopped if the worker has to stop."""
        if self.is_requested:
            raise Stopped

    async def wait(self) -> None:
        """Waits until the worker has to stop."""
        await self._event.wait()

    async def pause(self, seconds: float) -> None:
        """Waits.

        Raises:
            Stopped: the worker has to stop.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        raise Stopped
