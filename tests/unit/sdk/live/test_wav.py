"""WAV headers as various programs write them."""

import contextlib
import io
import struct

import pytest
from dalston import InvalidRequest
from dalston.live.audio_format import AudioFormat
from dalston.live.samples import Samples
from dalston.live.wav import WavHeader, read_header
from hypothesis import given
from hypothesis import strategies as st

GUID = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def fmt(tag: int, channels: int, rate: int, bits: int, more: bytes = b"") -> bytes:
    block = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits) + more)


def wav(*chunks: bytes, data: bytes = b"abcd", size: int | None = None) -> io.BytesIO:
    content = b"WAVE" + b"".join(chunks) + b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return io.BytesIO(struct.pack("<I", len(content)) + content)


@pytest.mark.parametrize(
    ("header", "encoding", "is_supported"),
    [
        (fmt(1, 1, 16_000, 16), "pcm_s16le", True),
        (fmt(3, 1, 16_000, 32), "pcm_f32le", True),
        (fmt(6, 1, 16_000, 8), "alaw", True),
        (fmt(7, 1, 16_000, 8), "mulaw", True),
        (fmt(0xFFFE, 1, 16_000, 16, struct.pack("<HHIH", 22, 16, 0, 1) + GUID), "pcm_s16le", True),
        (fmt(1, 1, 16_000, 8), "pcm_s16le", False),
        (fmt(1, 1, 16_000, 20), "pcm_s16le", False),
        (fmt(0xFFFE, 1, 16_000, 24, struct.pack("<HHIH", 22, 24, 0, 1) + GUID), "pcm_s16le", False),
        (fmt(1, 1, 16_000, 32), "pcm_s16le", False),
        (fmt(3, 1, 16_000, 64), "pcm_f32le", False),
    ],
)
def test_every_kind_of_sample_is_read(header: bytes, encoding: str, is_supported: bool) -> None:
    read = read_header(wav(header))
    assert (read.samples.format, read.samples.is_supported, read.size) == (AudioFormat(encoding), is_supported, 4)


def test_chunks_before_the_audio_are_skipped() -> None:
    file = wav(chunk(b"LIST", b"odd"), fmt(1, 2, 44_100, 16), chunk(b"JUNK", b"\0" * 1000), data=b"12345678")
    assert read_header(file) == WavHeader(Samples("pcm", 16, 44_100, 2), 8)
    assert file.read() == b"12345678"


MONO = Samples("pcm", 16, 8_000, 1)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_unknown_length_extends_to_the_end(size: int) -> None:
    """The placeholders that ffmpeg, sox and arecord write to a pipe."""
    assert read_header(wav(fmt(1, 1, 8_000, 16), size=size)) == WavHeader(MONO, None)


def wav_without_length(riff: int, behind: bytes) -> io.BytesIO:
    return io.BytesIO(struct.pack("<I", riff) + b"WAVE" + fmt(1, 1, 8_000, 16) + b"data\0\0\0\0" + behind)


@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
def test_zero_length_followed_by_audio_means_unknown_length(riff: int) -> None:
    file = wav_without_length(riff, b"\1\0\2\0" * 10)
    header = read_header(file)
    assert (header.size, header.lookahead + file.read()) == (None, b"\1\0\2\0" * 10)


@pytest.mark.parametrize(
    ("riff", "behind"),
    [
        (36, b""),
        (36 + 108, chunk(b"LIST", b"INFOISFT" + b"q" * 92)),
        (0, chunk(b"LIST", b"INFOISFT" + b"q" * 92)),
        (36 + 28, chunk(b"abcd", b"q" * 20)),
    ],
)
def test_chunks_after_empty_audio_are_not_read_as_audio(riff: int, behind: bytes) -> None:
    assert read_header(wav_without_length(riff, behind)) == WavHeader(MONO, 0)


def test_audio_may_follow_an_empty_data_chunk() -> None:
    file = wav_without_length(100, chunk(b"LIST", b"q" * 20) + chunk(b"data", b"abcd"))
    assert (read_header(file).size, file.read()) == (4, b"abcd")


@pytest.mark.parametrize("start", [b"RF64", b"BW64"])
@pytest.mark.parametrize(("size", "read"), [(5 << 30, 5 << 30), (0xFFFFFFFFFFFFFFFF, None), (12, 12)])
def test_lengths_beyond_4_gib_are_read(start: bytes, size: int, read: int | None) -> None:
    sizes = chunk(b"ds64", struct.pack("<QQQI", min(size + 72, (1 << 64) - 1), size, 0, 0))
    file = wav(sizes, fmt(1, 1, 8_000, 16), size=0xFFFFFFFF)
    assert read_header(file, start) == WavHeader(MONO, read)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (wav(fmt(1, 1, 16_000, 48)), "48-bit"),
        (wav(fmt(2, 1, 16_000, 4)), "compressed audio"),
        (wav(fmt(1, 0, 16_000, 16)), "0 channels"),
        (wav(fmt(1, 1, 6_000, 16)), "sample rate 6000 Hz"),
        (wav(fmt(1, 1, 48_001, 16)), "sample rate 48001 Hz"),
        (wav(), "does not state"),
        (io.BytesIO(b"\0\0\0\0AVI "), "is not one"),
        (io.BytesIO(b"\0\0\0\0WAVEfmt "), "ends before"),
        (wav(b"JUNK" + b"\xff" * 4), "no audio"),
    ],
)
def test_unsupported_wav_error_states_the_reason(file: io.BytesIO, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_header(file)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_rejected(content: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read_header(io.BytesIO(content))
    with contextlib.suppress(InvalidRequest):
        read_header(io.BytesIO(b"\0\0\0\0WAVE" + fmt(1, 1, 8_000, 16) + b"data\0\0\0\0" + content))
