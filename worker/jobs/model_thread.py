"""The one thread that runs the models, and recordings as that thread reads them."""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from server.audio.decoder import Samples
from telemetry.logs import get_logger
from worker.jobs.interruption import Interruption, Stopped
from worker.jobs.recognizer import Recognizer

log = get_logger(__name__)

T = TypeVar("T")

_LOOK_SECONDS: Final = 0.1


class ModelThread:
    """Runs one call at a time, in the order in which they were made: jobs take turns.

    The models are loaded with the first call, so that a worker without jobs needs little memory.
    """

    def __init__(self, load: Callable[[], Recognizer], lower: Callable[[], None]) -> None:
        """
        Args:
            load: loads the models.
            lower: called first on the thread, to lower its priority.
        """
        self._load = load
        self._recognizer: Recognizer | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=lower)

    async def run(self, call: Callable[[Recognizer], T]) -> T:
        """Calls it with the recognizer on the thread. A cancellation does not end a call that has begun."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: call(self._loaded()))

    def close(self) -> None:
        """Drops what has not begun; does not wait for what has."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _loaded(self) -> Recognizer:
        if self._recognizer is None:
            log.info("loading the models for the first job")
            began = time.monotonic()
            self._recognizer = self._load()
            seconds = round(time.monotonic() - began, 1)
            log.info("models loaded", models=sorted(self._recognizer.models), seconds=seconds)
        return self._recognizer


class ThreadAudio:
    """A recording that the thread of the model reads while the loop does the I/O."""

    def __init__(
        self, length: int, read: Callable[[int, int], Coroutine[None, None, Samples]], interruption: Interruption
    ) -> None:
        """To be made on the loop.

        Args:
            length: samples at 16 kHz.
            read: reads the samples from one to another; its errors end what the thread does.
            interruption: the end of the worker.
        """
        self.length = length
        self._read = read
        self._interruption = interruption
        self._loop = asyncio.get_running_loop()

    def read(self, first: int, last: int) -> Samples:
        """The samples from `first` to the one before `last`; shape [n].

        Raises:
            AudioDamaged: the stored audio ends before.
            Stopped: the worker stops.
        """
        reading = asyncio.run_coroutine_threadsafe(self._read(first, last), self._loop)
        try:
            while True:
                if self._interruption.is_requested:
                    raise Stopped
                try:
                    return reading.result(_LOOK_SECONDS)
                except concurrent.futures.TimeoutError:
                    if reading.done():
                        raise
        finally:
            reading.cancel()
