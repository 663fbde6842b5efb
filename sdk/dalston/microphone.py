"""The microphone as a source of audio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

_BLOCK_SECONDS = 0.05
_WAITING_SECONDS = 30.0
"""Audio that waits to be taken, before it is dropped."""


class Microphone:
    """The default input device, or another. Needs the package `sounddevice`.

    Args:
        device: number or part of the name of an input device. Default: the system's.
        sample_rate: samples per second, 8000 to 48000.
        channels: 1 or 2.
    """

    def __init__(self, device: int | str | None = None, *, sample_rate: int = 16_000, channels: int = 1) -> None:
        self.device = device
        self.sample_rate = sample_rate
        self.channels = channels

    def record(self) -> Recording:
        """Starts to record.

        Raises:
            RuntimeError: `sounddevice` is not installed, or finds no PortAudio.
            OSError: there is no such device, or it does not record like that.
        """
        try:
            import sounddevice
        except ImportError:
            raise RuntimeError("a microphone needs the Python package sounddevice: pip install sounddevice") from None
        except OSError as error:
            raise RuntimeError(f"a microphone needs PortAudio: {error}") from None
        recording = Recording(int(_WAITING_SECONDS / _BLOCK_SECONDS), 2 * self.channels, self.sample_rate)
        try:
            stream = sounddevice.RawInputStream(
                samplerate=self.sample_rate,
                channels=self.channels,
                device=self.device,
                dtype="int16",
                blocksize=round(_BLOCK_SECONDS * self.sample_rate),
                callback=recording.hear,
            )
            stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise OSError(f"the microphone cannot be opened: {error}") from None
        recording.on_close = stream.close
        return recording


class Recording:
    """16-bit PCM that a device gives, to be iterated over by one thread while another fills it.

    What is not taken in time is dropped. Silence of the same length stands in its place, so that times stay true.
    """

    def __init__(self, most_blocks: int, frame_bytes: int, sample_rate: int) -> None:
        self._blocks: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        """Each with the bytes that are missing before it; None at the end."""
        self._most_blocks = most_blocks
        self._frame_bytes = frame_bytes
        self._bytes_per_second = frame_bytes * sample_rate
        self._lock = threading.Lock()
        self._missing = 0
        self._dropped = 0
        self._is_closed = False
        self.on_close: Callable[[], object] | None = None

    def hear(self, data: Any, frames: int, _time: object, status: Any) -> None:
        """Takes a block from the device, on its own thread: never waits."""
        with self._lock:
            if self._is_closed:
                return
            if getattr(status, "input_overflow", False):
                self._drop(frames * self._frame_bytes)  # As much as a block, for all that is known.
            if self._blocks.qsize() >= self._most_blocks:
                self._drop(len(data))
            else:
                self._blocks.put((self._missing, bytes(data)))
                self._missing = 0

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._blocks.get()) is not None:
            missing, block = item
            yield bytes(missing) + block

    def dropped_seconds(self) -> float:
        """Audio lost since the last question."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped / self._bytes_per_second

    def close(self) -> None:
        """Stops the device; what was recorded until then is still given."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._blocks.put((self._missing, b""))
            self._blocks.put(None)
        if self.on_close is not None:
            self.on_close()

    def _drop(self, size: int) -> None:
        self._missing += size
        self._dropped += size
