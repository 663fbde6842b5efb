"""Converts decoded frames of any sample format, rate and number of channels to the format of the models."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from server.audio.decoder import MODEL_RATE, Decoder
from server.audio.format import AudioFormat, Encoding
from worker.media.errors import Reason, UndecodableMedia

SAMPLE_BYTES: Final = 2
"""Of a sample of the output: signed, 16 bits, little-endian."""
MIN_RATE: Final = 4_000
MAX_RATE: Final = 384_000
MAX_CHANNELS: Final = 64

_MIN_GAP_SECONDS: Final = 0.1
_MAX_GAP_SECONDS: Final = 600.0
"""A longer gap between two frames is a wrong timestamp."""


class Frame(Protocol):
    """What is used of `av.AudioFrame`."""

    @property
    def samples(self) -> int: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def time(self) -> float | None: ...
    @property
    def layout(self) -> Any: ...
    @property
    def format(self) -> Any: ...
    def to_ndarray(self) -> NDArray[Any]: ...


class TooMuchAudio(Exception):
    """The audio is longer than the limit."""


class PcmWriter:
    """Writes one stream as mono 16-bit PCM at 16 kHz, with the downmix and the resampler of live audio.

    Gaps between timestamps become silence, so that times in the output are those of a player.

    Args:
        write: receives the bytes of the output.
        max_seconds: limit of the output; more raises `TooMuchAudio`.
        begins_at: the timestamp in seconds at which the file begins, so that a later first frame follows a gap; None if
            it begins with its first frame.
    """

    def __init__(self, write: Callable[[bytes], None], max_seconds: float, begins_at: float | None = None) -> None:
        self._write = write
        self._most = int(max_seconds * MODEL_RATE)
        self._written = 0
        self._decoder: Decoder | None = None
        self._rate = self._channels = 0
        self._pending: list[NDArray[np.float32]] = []
        self._pending_length = 0
        self._clock = _Clock(begins_at)

    @property
    def seconds(self) -> float:
        """Length of what has been written."""
        return self._written / MODEL_RATE

    def push(self, frame: Frame) -> None:
        """Adds the next frame.

        Raises:
            TooMuchAudio: the output is longer than the limit.
            UndecodableMedia: the rate or the number of channels is not that of a recording.
        """
        if frame.samples <= 0:
            return
        self._adapt(frame.sample_rate, frame.layout.nb_channels)
        gap = self._clock.gap_before(frame)
        while gap > 0:
            length = min(gap, 1.0)
            self._add(np.zeros((round(length * self._rate), min(self._channels, 2)), np.float32))
            gap -= length
        self._add(_folded(_floats(frame)))

    def finish(self) -> None:
        """Writes what is held back."""
        self._flush()
        if self._decoder is not None:
            self._emit(self._decoder.finish())
            self._decoder = None

    def _adapt(self, rate: int, channels: int) -> None:
        """Begins a new conversion where rate or channels change, as in chained Ogg streams."""
        if self._decoder is not None and (rate, channels) == (self._rate, self._channels):
            return
        if not MIN_RATE <= rate <= MAX_RATE:
            raise UndecodableMedia(Reason.UNSUPPORTED_CODEC, f"the audio has {rate} samples per second")
        if not 1 <= channels <= MAX_CHANNELS:
            raise UndecodableMedia(Reason.UNSUPPORTED_CODEC, f"the audio has {channels} channels")
        self.finish()
        self._rate, self._channels = rate, channels
        self._decoder = Decoder(AudioFormat(Encoding.PCM_F32LE, rate, min(channels, 2)))

    def _add(self, samples: NDArray[np.float32]) -> None:
        self._pending.append(samples)
        self._pending_length += len(samples)
        if self._pending_length >= self._rate:  # Frames are short, and each conversion has a cost of its own.
            self._flush()

    def _flush(self) -> None:
        if self._decoder is not None and self._pending:
            samples = np.concatenate(self._pending)
            self._pending, self._pending_length = [], 0
            self._emit(self._decoder.push(samples.astype("<f4").tobytes()))

    def _emit(self, samples: NDArray[np.float32]) -> None:
        left = self._most - self._written
        pcm = np.clip(np.rint(samples[: left + 1] * np.float32(32768)), -32768, 32767).astype("<i2")
        if len(pcm) > left:
            raise TooMuchAudio
        self._write(pcm.tobytes())
        self._written += len(pcm)


class _Clock:
    """Compares the timestamps of frames with the audio before them."""

    def __init__(self, begins_at: float | None) -> None:
        self._due = begins_at

    def gap_before(self, frame: Frame) -> float:
        """Seconds of audio that are missing before the frame."""
        time, length = frame.time, frame.samples / frame.sample_rate
        if time is None or self._due is None:
            self._due = None if time is None else time + length
            return 0.0
        gap = time - self._due
        if abs(gap) <= _MIN_GAP_SECONDS:
            self._due += length  # Small deviations add up instead of being lost.
            return 0.0
        self._due = time + length
        return gap if 0 < gap <= _MAX_GAP_SECONDS else 0.0


def _floats(frame: Frame) -> NDArray[np.float32]:
    """The samples of a frame, shape [sample frames, channels], full scale 1.0."""
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(-float(np.iinfo(samples.dtype).min))
    return samples.astype(np.float32)


def _folded(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """One or two channels: of more, the means of the even and of the odd ones.

    The usual matrices for loudspeakers drop channels, and field recorders use any of them for speech.
    """
    if samples.shape[1] <= 2:
        return samples
    samples = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    return np.stack([samples[:, 0::2].mean(axis=1), samples[:, 1::2].mean(axis=1)], axis=1)
