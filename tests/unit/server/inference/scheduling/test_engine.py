"""The engine around a worker that dies; transcription is tested on the real weights."""

import asyncio

import numpy as np
import pytest

from server.inference.config import InferenceSettings
from server.inference.errors import EngineStopped
from server.inference.scheduling.engine import Engine
from server.inference.scheduling.job_queue import JobQueue


async def test_an_engine_whose_thread_died_reports_it_and_refuses_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Engine, "_load", lambda _: {})
    monkeypatch.setattr(JobQueue, "take", breaks)
    async with Engine(InferenceSettings()) as engine, asyncio.timeout(5):
        await engine.died.wait()
        with pytest.raises(EngineStopped):
            await engine.recognize("fast", np.zeros(16_000, np.float32), "en")


async def test_an_engine_that_was_exited_has_not_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_load", lambda _: {})
    async with Engine(InferenceSettings()) as engine:
        pass
    await asyncio.sleep(0)
    assert not engine.died.is_set()
