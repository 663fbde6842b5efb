"""One engine on the offline weights, loaded once for all tests in this folder."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from numpy.typing import NDArray

import server.inference.torchaudio_compat  # noqa: F401 - before anything here imports transformers
from server.inference.config import InferenceSettings
from server.inference.scheduling.engine import Engine
from server.inference.weights import resolve

SAMPLES = Path(__file__).parents[3] / "samples"
RATE = 16_000
# Pauses of the reader, in seconds: each line of the text lies between two of them.
PAUSES = (0.0, 7.5, 11.5, 17.6, 24.5, 28.6)


@dataclass(frozen=True)
class Spoken:
    """An utterance and its text."""

    samples: NDArray[np.float32]
    text: str


@pytest.fixture(scope="session")
def spoken() -> list[Spoken]:
    """The sample recording, cut at its pauses."""
    samples, rate = soundfile.read(SAMPLES / "sense-and-sensibility.flac", dtype="float32")
    assert rate == RATE
    lines = (SAMPLES / "sense-and-sensibility.txt").read_text().splitlines()
    return [
        Spoken(samples[int(start * RATE) : int(end * RATE)], line)
        for (start, end), line in zip(pairwise(PAUSES), lines, strict=True)
    ]


@pytest.fixture(scope="session")
def settings() -> InferenceSettings:
    # Without high-beam decoding, because finals are compared with each other.
    return InferenceSettings(models={"fast": "base", "accurate": "base"}, spare_beams=1)


@pytest.fixture(scope="session")
def weights(settings: InferenceSettings) -> Path:
    """The offline weights as a Hugging Face directory."""
    return resolve("base", settings.cache_dir, lambda _: None)


@pytest_asyncio.fixture(scope="session")
async def engine(settings: InferenceSettings) -> AsyncIterator[Engine]:
    async with Engine(settings) as engine:
        yield engine


@pytest_asyncio.fixture(scope="session")
async def beams() -> AsyncIterator[Engine]:
    """An engine with the default beam size of `accurate`."""
    async with Engine(
        InferenceSettings(models={"fast": "base", "accurate": "base"}, spare_beams=1, threads=1)
    ) as engine:
        yield engine
