"""Fixtures of the SDK's tests: clients of the running stack, and speech."""

import io
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dalston import AsyncClient, Client

from stack.settings import ROOT
from stack.supervisor import Stack

RATE = 16_000


@dataclass(frozen=True)
class Speech:
    """The sample recording."""

    pcm: bytes
    text: str
    wav: Path

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / RATE


def wav_of(pcm: bytes, rate: int = RATE, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((channels, 2, rate, 0, "NONE", ""))
        wav.writeframes(pcm)
    return file.getvalue()


def frames_of(wav: bytes) -> bytes:
    with wave.open(io.BytesIO(wav)) as file:
        return file.readframes(file.getnframes())


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Speech:
    samples, rate = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16")
    assert rate == RATE
    pcm = np.asarray(samples).tobytes()
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    path.write_bytes(wav_of(pcm))
    return Speech(pcm, (ROOT / "samples" / "sense-and-sensibility.txt").read_text(), path)


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.base_url) as client:
        yield client


@pytest.fixture(scope="session")
async def async_client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stack.base_url) as client:
        yield client
