"""The WAV header, read back by libsndfile and by hand."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.s3 import layout
from persistence.wav import WavFormat, data_bytes

SUBTYPES = {"pcm_s16le": "PCM_16", "pcm_f32le": "FLOAT", "mulaw": "ULAW", "alaw": "ALAW"}
FORMATS = st.builds(
    WavFormat,
    encoding=st.sampled_from(sorted(SUBTYPES)),
    sample_rate=st.integers(8000, 48000),
    channels=st.integers(1, 2),
)


def a_file(wav: WavFormat, data: bytes) -> bytes:
    return wav.header(len(data)) + data + wav.padding(len(data))


@settings(deadline=None)
@given(FORMATS, st.integers(0, 999))
def test_libsndfile_reads_every_encoding_rate_and_channel_count(wav: WavFormat, frames: int) -> None:
    data = bytes(frames * wav.frame_bytes)
    info = soundfile.info(io.BytesIO(a_file(wav, data)))
    assert (info.frames, info.samplerate, info.channels) == (frames, wav.sample_rate, wav.channels)
    assert (info.format, info.subtype) == ("WAV", SUBTYPES[wav.encoding])


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_samples_of_libsndfile_are_read_unchanged(encoding: str) -> None:
    samples = np.array([[-0.9, 0.5], [0.1, -0.1], [0.7, 0.0]])
    raw = io.BytesIO()
    soundfile.write(raw, samples, 8000, format="RAW", subtype=SUBTYPES[encoding])
    read, rate = soundfile.read(io.BytesIO(a_file(WavFormat(encoding, 8000, 2), raw.getvalue())))
    assert rate == 8000
    np.testing.assert_allclose(read, samples, atol=0.04)


@settings(deadline=None)
@given(FORMATS, st.integers(0, 2**34))
def test_the_header_has_one_length_for_any_amount_of_audio(wav: WavFormat, size: int) -> None:
    header = wav.header(size)
    assert len(header) == wav.header_bytes
    assert wav.file_bytes(size) == len(header) + size + size % 2


@settings(deadline=None)
@given(FORMATS, st.integers(0, 2**33))
def test_the_sizes_in_the_header_add_up_to_the_file(wav: WavFormat, frames: int) -> None:
    size = frames * wav.frame_bytes
    header = wav.header(size)
    riff, data = struct.unpack("<I", header[4:8])[0], struct.unpack("<I", header[-4:])[0]
    if header[:4] == b"RF64":
        assert riff == data == 0xFFFFFFFF
        riff, data, counted = struct.unpack("<QQQ", header[20:44])
        assert counted == frames
    assert (riff + 8, data) == (wav.file_bytes(size), size)


def test_only_formats_other_than_pcm_have_an_extension_and_a_fact_chunk() -> None:
    assert b"fact" not in WavFormat("pcm_s16le", 16000, 1).header(320)
    header = WavFormat("pcm_f32le", 16000, 2).header(1600)
    assert struct.unpack("<4sI", header[48:56]) == (b"fmt ", 18)
    assert struct.unpack("<4sII", header[74:86]) == (b"fact", 4, 200)


@pytest.mark.parametrize(("frames", "kind"), [(2**31 - 50, b"RIFF"), (2**31 - 1, b"RF64"), (2**31 + 5, b"RF64")])
def test_above_four_gibibytes_the_file_is_an_rf64(frames: int, kind: bytes, tmp_path: Path) -> None:
    wav = WavFormat("pcm_s16le", 16000, 1)
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(wav.header(frames * 2))
        file.truncate(wav.file_bytes(frames * 2))  # sparse: takes no disk
    with path.open("rb") as file:
        assert file.read(4) == kind
    assert soundfile.info(path).frames == frames


@settings(deadline=None)
@given(FORMATS, st.integers(0, 2**34))
def test_the_amount_of_audio_is_read_from_the_header(wav: WavFormat, size: int) -> None:
    assert data_bytes(wav.header(size)) == size


FOUR_GIB = 2**32
LONG_WAVS = [WavFormat("pcm_s16le", 48000, 2), WavFormat("pcm_f32le", 44100, 1), WavFormat("mulaw", 8000, 1)]


@pytest.mark.parametrize("wav", LONG_WAVS, ids=lambda wav: wav.encoding)
@pytest.mark.parametrize("beyond_bytes", [-layout.PART_BYTES, -200, -96, -80, 0, 96, layout.PART_BYTES + 12])
def test_near_four_gibibytes_the_parts_make_up_the_file(wav: WavFormat, beyond_bytes: int, tmp_path: Path) -> None:
    """Parts at their places in a sparse file: the first, the last, and those on either side of the boundary."""
    total = (FOUR_GIB + beyond_bytes) // wav.frame_bytes * wav.frame_bytes - wav.frame_bytes
    count = layout.part_count(wav, total)
    ranges = [layout.audio_range(wav, number, total) for number in range(1, count + 1)]
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == total
    boundary = layout.part_of(wav, FOUR_GIB - layout.PART_BYTES)
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        for number in sorted({1, boundary, min(count, boundary + 1), count}):
            begin, end = ranges[number - 1]
            body = layout.part(wav, number, total, bytes([number % 100]) * (end - begin))
            assert len(body) == layout.PART_BYTES or number == count
            file.seek((number - 1) * layout.PART_BYTES)
            file.write(body)
    assert path.stat().st_size == wav.file_bytes(total)
    with soundfile.SoundFile(path) as file:
        assert file.format == ("RF64" if wav.file_bytes(total) - 8 > 0xFFFFFFFF else "WAV")
        assert file.frames == total // wav.frame_bytes
        for number in (boundary, count):
            first, end = (position // wav.frame_bytes for position in ranges[number - 1])
            for at in {first + 1, end - 1}:
                file.seek(at)
                assert file.read(1, dtype="float64", always_2d=True).tolist() == expected_of(wav, number)


def expected_of(wav: WavFormat, number: int) -> list[list[float]]:
    """What libsndfile makes of a frame of this number's byte."""
    raw = io.BytesIO(bytes([number % 100]) * wav.frame_bytes)
    subtype = SUBTYPES[wav.encoding]
    read, _ = soundfile.read(
        raw, samplerate=wav.sample_rate, channels=wav.channels, format="RAW", subtype=subtype, endian="LITTLE",
        always_2d=True,
    )  # fmt: skip
    return read.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("bad", [("opus", 16000, 1), ("pcm_s16le", 0, 1), ("pcm_s16le", 16000, 3)])
def test_formats_that_wav_does_not_have_are_refused(bad: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match=r"WAV|channels"):
        WavFormat(*bad)
