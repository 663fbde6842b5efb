"""A microphone with a fake device."""

from __future__ import annotations

import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest
from dalston import AsyncClient, Ended, Microphone

from tests.unit.sdk.service import Service, serving, speech

AUDIO = speech([(0.2, 0.5)] * 4)


class Device(ModuleType):
    """Plays the audio at fifty times its speed, and then silence."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.options: dict[str, Any] = {}
        self.stopped = threading.Event()
        self.played = bytearray()

    def RawInputStream(self, **options: Any) -> Device:
        if options["device"] == "none":
            raise self.PortAudioError("no such device")
        self.options = options
        return self

    def start(self) -> None:
        threading.Thread(target=self.play, daemon=True).start()

    def play(self) -> None:
        size = 2 * self.options["blocksize"]
        start = 0
        while not self.stopped.is_set():
            block = AUDIO[start : start + size].ljust(size, b"\0")
            self.played += block
            self.options["callback"](block, len(block) // 2, None, None)
            start += size
            time.sleep(0.001)

    def close(self) -> None:
        self.stopped.set()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    return device


async def test_microphone_audio_is_sent_completely_until_the_end(device: Device) -> None:
    service = Service()
    events = []
    async with serving(service) as url, AsyncClient(url) as client:
        stream = client.transcribe(Microphone(device=3, sample_rate=16_000), store_audio=True)
        async for event in stream:
            events.append(event)
            if len(stream.transcript.utterances) == 3:
                stream.end()
    assert isinstance(events[-1], Ended)
    assert device.stopped.is_set()
    assert device.options["device"] == 3
    recorded = bytes(service.last.audio)
    assert recorded == bytes(device.played[: len(recorded)])
    assert len(recorded) > len(AUDIO) // 2


async def test_closing_releases_the_device(device: Device) -> None:
    async with serving(Service()) as url, AsyncClient(url) as client, client.transcribe(Microphone()) as stream:
        async for _ in stream:
            break
    assert device.stopped.is_set()


async def test_missing_device_or_package_is_an_error(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(OSError, match="no such device"):
            await client.transcribe(Microphone("none")).wait()
        monkeypatch.setitem(sys.modules, "sounddevice", None)
        with pytest.raises(RuntimeError, match="pip install"):
            await client.transcribe(Microphone()).wait()
