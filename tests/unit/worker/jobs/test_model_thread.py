"""The thread of the model."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from domain.errors import StorageUnavailable
from server.audio.decoder import Samples
from worker.jobs.interruption import Interruption, Stopped
from worker.jobs.model_thread import ModelThread, ThreadAudio


class Nothing:
    models = frozenset({"accurate"})


async def test_the_models_are_loaded_once_and_by_the_first_call() -> None:
    loads: list[str] = []

    def load() -> Any:
        loads.append(threading.current_thread().name)
        return Nothing()

    lowered: list[str] = []
    thread = ModelThread(load, lambda: lowered.append(threading.current_thread().name))
    assert loads == []
    names = await asyncio.gather(*(thread.run(lambda _: threading.current_thread().name) for _ in range(5)))
    thread.close()
    assert len(loads) == 1
    assert set(names) == set(loads) == set(lowered)


async def test_calls_take_turns_in_their_order() -> None:
    thread, order = ModelThread(lambda: Nothing(), lambda: None), []  # type: ignore[arg-type, return-value]

    async def job(name: str) -> None:
        for number in range(3):
            await thread.run(lambda _, number=number: order.append(f"{name}{number}"))  # type: ignore[misc]

    await asyncio.gather(job("a"), job("b"))
    thread.close()
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def read(first: int, last: int) -> Samples:
    return np.arange(first, last, dtype=np.float32)


async def test_the_thread_reads_audio_while_the_loop_does_the_io() -> None:
    audio = ThreadAudio(100, read, Interruption())
    assert (await asyncio.to_thread(audio.read, 3, 6)).tolist() == [3, 4, 5]
    assert audio.length == 100


async def test_an_error_of_the_reading_reaches_the_thread() -> None:
    async def fail(first: int, last: int) -> Samples:
        raise StorageUnavailable("away")

    audio = ThreadAudio(100, fail, Interruption())
    with pytest.raises(StorageUnavailable):
        await asyncio.to_thread(audio.read, 3, 6)


async def test_a_time_out_of_the_reading_is_an_error_and_no_wait() -> None:
    async def fail(first: int, last: int) -> Samples:
        raise TimeoutError

    audio = ThreadAudio(100, fail, Interruption())
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(audio.read, 3, 6)


async def test_the_end_of_the_worker_ends_a_read_that_hangs() -> None:
    async def hang(first: int, last: int) -> Samples:
        await asyncio.Event().wait()
        raise AssertionError

    interruption = Interruption()
    audio = ThreadAudio(100, hang, interruption)
    reading = asyncio.create_task(asyncio.to_thread(audio.read, 3, 6))
    await asyncio.sleep(0.05)
    assert not reading.done()
    interruption.request()
    with pytest.raises(Stopped):
        await reading


async def test_a_pause_ends_with_the_worker() -> None:
    interruption = Interruption()
    await interruption.pause(0.01)
    interruption.check()
    pausing = asyncio.create_task(interruption.pause(3600))
    await asyncio.sleep(0)
    interruption.request()
    with pytest.raises(Stopped):
        await pausing
    with pytest.raises(Stopped):
        interruption.check()
