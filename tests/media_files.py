"""Makes media files of every supported format, and hostile ones, with PyAV and by hand."""

import io
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

SPEECH_RATE: Final = 16_000
_SAMPLE: Final = Path(__file__).resolve().parents[1] / "samples" / "sense-and-sensibility.flac"

Samples = NDArray[np.float32]


@cache
def speech(seconds: float = 8.0) -> Samples:
    """The beginning of the sample recording, mono at 16 kHz."""
    samples, rate = soundfile.read(_SAMPLE, dtype="float32", frames=int(seconds * SPEECH_RATE))
    assert rate == SPEECH_RATE
    return np.asarray(samples, np.float32)


def resampled(samples: Samples, rate: int) -> Samples:
    """Speech at another rate."""
    import soxr

    return np.asarray(soxr.resample(samples, SPEECH_RATE, rate), np.float32)


class EncoderMissing(Exception):
    """PyAV lacks the encoder."""


def encoded(
    container: str,
    codec: str,
    samples: Samples,
    rate: int,
    *,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A file of libav's muxer and encoder with these names.

    Args:
        samples: shape [n] or [n, channels].
    """
    planes = samples[np.newaxis] if samples.ndim == 1 else samples.T
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(planes)]
    try:
        # `faststart` reads the file again by its name.
        with (
            tempfile.NamedTemporaryFile() as file,
            av.open(file.name, "w", format=container, options=options or {}) as output,
        ):
            stream: Any = output.add_stream(codec, rate=rate, options=codec_options or {})
            stream.layout = layout
            output.metadata.update(metadata or {})
            _encode(output, stream, np.ascontiguousarray(planes, np.float32), layout, rate)
            output.close()
            return Path(file.name).read_bytes()
    except (av.codec.codec.UnknownCodecError, av.error.ExperimentalError) as error:
        raise EncoderMissing(codec) from error


def _encode(output: Any, stream: Any, planes: Samples, layout: str, rate: int, at_seconds: float = 0.0) -> None:
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.rate = rate
    frame.pts = round(at_seconds * rate)
    size = stream.codec_context.frame_size
    converter = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=size or 4096)
    for piece in [*converter.resample(frame), *converter.resample(None)]:
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def streams_file(
    container: str, streams: list[tuple[str, Samples, int]], *, video: bool = False, at: float = 0.0
) -> bytes:
    """A file with several audio streams, each with codec, samples and rate, and optionally a picture track before them.

    Args:
        at: where the audio begins on the time axis, in seconds.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        picture: Any = None
        if video:
            picture = output.add_stream("mjpeg", rate=5)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
        tracks: list[Any] = []
        for codec, _, rate in streams:
            track: Any = output.add_stream(codec, rate=rate)
            track.layout = "mono"
            tracks.append(track)
        if picture is not None:
            for index in range(10):
                image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index * 20, np.uint8), format="rgb24")
                image.pts = index
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        for track, (_, samples, rate) in zip(tracks, streams, strict=True):
            _encode(output, track, samples[np.newaxis], "mono", rate, at)
    return file.getvalue()


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """A chunk of a RIFF file; `size` may be wrong."""
    return name + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def wav(
    data: bytes,
    *,
    tag: int = 1,
    bits: int = 16,
    rate: int = SPEECH_RATE,
    channels: int = 1,
    before: bytes = b"",
    after: bytes = b"",
    data_size: int | None = None,
    riff_size: int | None = None,
    form: bytes = b"RIFF",
    extension: bytes = b"",
) -> bytes:
    """A WAV file; the sizes may be wrong."""
    frame = channels * ((bits + 7) // 8)
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits) + extension
    body = b"WAVE" + before + chunk(b"fmt ", fmt) + chunk(b"data", data, data_size) + after
    return form + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def pcm16(samples: Samples) -> bytes:
    """Signed 16-bit samples."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def box(name: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    """A box of an MP4; `size` may be wrong."""
    return struct.pack(">I", len(content) + 8 if size is None else size) + name + content


def id3(size: int, frames: bytes = b"") -> bytes:
    """An ID3v2.4 tag whose content has `size` bytes."""
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + length + frames + bytes(size - len(frames))
