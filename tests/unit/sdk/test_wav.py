"""WAV headers as programs write them."""

import contextlib
import io
import struct

import pytest
from dalston import InvalidRequest
from dalston.live.format import AudioFormat
from dalston.live.wav import read_header
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
    ("header", "encoding"),
    [
        (fmt(1, 1, 16_000, 16), "pcm_s16le"),
        (fmt(3, 1, 16_000, 32), "pcm_f32le"),
        (fmt(6, 1, 16_000, 8), "alaw"),
        (fmt(7, 1, 16_000, 8), "mulaw"),
        (fmt(0xFFFE, 1, 16_000, 16, struct.pack("<HHIH", 22, 16, 0, 1) + GUID), "pcm_s16le"),
    ],
)
def test_every_encoding_of_the_contract_is_read(header: bytes, encoding: str) -> None:
    assert read_header(wav(header)) == (AudioFormat(encoding), 4)


def test_the_audio_begins_behind_whatever_comes_before_it() -> None:
    file = wav(chunk(b"LIST", b"odd"), fmt(1, 2, 44_100, 16), chunk(b"JUNK", b"\0" * 1000), data=b"12345678")
    assert read_header(file) == (AudioFormat("pcm_s16le", 44_100, 2), 8)
    assert file.read() == b"12345678"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_length_that_was_not_known_is_to_the_end(size: int) -> None:
    assert read_header(wav(fmt(1, 1, 8_000, 16), size=size))[1] is None


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (wav(fmt(1, 1, 16_000, 24)), "24 bits is not taken; what is taken is 16-bit PCM"),
        (wav(fmt(1, 6, 16_000, 16)), "channels"),
        (wav(fmt(1, 1, 96_000, 16)), "sample_rate"),
        (wav(), "does not say"),
        (io.BytesIO(b"\0\0\0\0AVI "), "is none"),
        (io.BytesIO(b"\0\0\0\0WAVEfmt "), "ends before"),
        (wav(b"JUNK" + b"\xff" * 4), "no audio"),
    ],
)
def test_what_is_not_taken_says_why(file: io.BytesIO, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_header(file)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_refused_or_read(content: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read_header(io.BytesIO(content))
