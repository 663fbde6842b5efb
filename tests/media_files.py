"""Makes media files of every supported format, and hostile ones, with PyAV and by hand."""

import io
import struct
import tempfile
from collections.abc import Callable
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
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(planes)]
    try:
        # `faststart` reads the file again by its name.
        with (
            tempfile.NamedTemporaryFile() as file,
            av.open(file.name, "w", format=container, options=options or {}) as output,
        ):
            stream: Any = output.add_stream(codec, rate=rate, options=codec_options or {})
            stream.layout = layout
            output.metadata.update(metadata or {})
            _encode(output, stream, planes, layout, rate)
            output.close()
            return Path(file.name).read_bytes()
    except (av.codec.codec.UnknownCodecError, av.error.ExperimentalError) as error:
        raise EncoderMissing(codec) from error


def _encode(output: Any, stream: Any, planes: Samples, layout: str, rate: int, at_seconds: float = 0.0) -> None:
    packed = np.ascontiguousarray(planes.T, np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
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


def ogg_page(packets: list[bytes], serial: int, sequence: int, granule: int, flags: int = 0) -> bytes:
    """A page of Ogg with whole packets, each shorter than 255 bytes."""
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, serial, sequence, 0, len(packets))
    page = bytearray(head + bytes(map(len, packets)) + b"".join(packets))
    struct.pack_into("<I", page, 22, _ogg_crc(page))
    return bytes(page)


def opus_of_channels(channels: int, packets: int) -> bytes:
    """An Ogg file of 60 ms of silence in each packet, with channels that have no meaning."""
    head = b"OpusHead" + struct.pack("<BBHIhBBB", 1, channels, 0, 48_000, 0, 255, channels, 0) + bytes(range(channels))
    tags = b"OpusTags" + struct.pack("<I4sI", 4, b"none", 0)
    # All streams but the last state their length, which is 0.
    packet = b"\x18\0" * (channels - 1) + b"\x18"
    body = ogg_page([packet] * packets, 1, 2, packets * 2_880, 4)
    return ogg_page([head], 1, 0, 0, 2) + ogg_page([tags], 1, 1, 0) + body


def opus_bomb(seconds: int) -> bytes:
    """An Ogg file of two bytes for every 120 ms of silence."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I4sI", 4, b"none", 0)
    pages = [ogg_page([head], 1, 0, 0, 2), ogg_page([tags], 1, 1, 0)]
    # SILK, narrowband, two frames of 60 ms, both empty.
    packets = [b"\x19"] * 255
    granule = 0
    while granule < seconds * 48_000:
        granule += 255 * 5_760
        pages.append(ogg_page(packets, 1, len(pages), granule, 4 if granule >= seconds * 48_000 else 0))
    return b"".join(pages)


@cache
def _ogg_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


def _ogg_crc(page: bytes | bytearray) -> int:
    table, value = _ogg_table(), 0
    for byte in page:
        value = value << 8 & 0xFFFFFFFF ^ table[value >> 24 ^ byte]
    return value


def with_boxes(data: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """An MP4 in which `change` has replaced the content of the boxes at a path such as (moov, trak)."""
    result, at = bytearray(), 0
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = data[at + 8 : at + size]
        if name == path[0]:
            content = change(content) if len(path) == 1 else with_boxes(content, path[1:], change)
        result += box(name, content)
        at += size
    return bytes(result)


MEDIA_BOXES: Final = (b"moov", b"trak", b"mdia", b"minf")


def with_reference(data: bytes, target: str) -> bytes:
    """An MP4 whose samples are in another file, as QuickTime's aliases refer to one."""
    path = target.encode()
    alias = bytes(10) + b"\x01v" + bytes(26) + bytes(12) + b"\x01f" + bytes(62) + bytes(16) + b"\0\1\0\1" + bytes(16)
    for kind in (2, 18):
        alias += struct.pack(">HH", kind, len(path)) + path + bytes(len(path) % 2)
    alias += struct.pack(">HH", 0xFFFF, 0)
    reference = bytes(4) + struct.pack(">I", 1) + box(b"alis", bytes(4) + alias + bytes(200))
    return with_boxes(data, (*MEDIA_BOXES, b"dinf", b"dref"), lambda _: reference)
