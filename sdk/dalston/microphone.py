"""The microphone as an audio source."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

_BLOCK_SECONDS = 0.05
_WAITING_SECONDS = 30.0
"""Recorded audio that may wait to be read before audio is dropped."""


class Microphone:
    """An input device. Requires the package `sounddevice`.

    Args:
        device: number of an input device, or a part of its name. Default: the system's default device.
        sample_rate: samples per second, 8000 to 48000.
        channels: 1 or 2.
    """

    def __init__(self, device: int | str | None = None, *, sample_rate: int = 16_000, channels: int = 1) -> None:
        self.device = device
        self.sample_rate = sample_rate
        self.channels = channels

    def record(self) -> Recording:
        """Starts recording.

        Raises:
            RuntimeError: `sounddevice` is not installed, or does not find PortAudio.
            OSError: the device does not exist or does not support this format.
        """
        try:
            import sounddevice
        except ImportError:
            raise RuntimeError(
                "recording from a microphone requires the Python package sounddevice: pip install sounddevice"
            ) from None
        except OSError as error:
            raise RuntimeError(f"recording from a microphone requires PortAudio: {error}") from None
        recording = Recording(int(_WAITING_SECONDS / _BLOCK_SECONDS), 2 * self.channels, self.sample_rate)
        try:
            stream = sounddevice.RawInputStream(
                samplerate=self.sample_rate,
                channels=self.channels,
                device=self.device,
                dtype="int16",
                blocksize=round(_BLOCK_SECONDS * self.sample_rate),
                callback=recording.append_block,
            )
            stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise OSError(f"the microphone cannot be opened: {error}") from None
        recording.on_close = stream.close
        return recording


class Recording:
    """16-bit PCM from a device: one thread appends blocks while another iterates over them.

    Audio that is not read in time is dropped and replaced by silence of the same length, so that times stay correct.
    """

    def __init__(self, most_blocks: int, frame_bytes: int, sample_rate: int) -> None:
        self._blocks: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        """Each block with the number of bytes missing before it; None marks the end."""
        self._most_blocks = most_blocks
        self._frame_bytes = frame_bytes
        self._bytes_per_second = frame_bytes * sample_rate
        self._lock = threading.Lock()
        self._missing = 0
        self._dropped = 0
        self._is_closed = False
        self.on_close: Callable[[], object] | None = None

    def append_block(self, data: Any, frames: int, _time: object, status: Any) -> None:
        """Appends a block; called on the device's thread, never blocks."""
        with self._lock:
            if self._is_closed:
                return
            if getattr(status, "input_overflow", False):
                self._drop(frames * self._frame_bytes)  # The driver does not report how much; a block is a guess.
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
        """Seconds of audio dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped / self._bytes_per_second

    def close(self) -> None:
        """Stops the device. Audio recorded before can still be read."""
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
