import io

import numpy as np
import pytest
import soundfile

from server.audio.container import ContainerDetector, detect_container

TONE = (0.3 * np.sin(np.arange(48_000) / 20)).astype(np.float32)


def encoded(kind: str, subtype: str | None = None, rate: int = 44_100) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, TONE, rate, format=kind, subtype=subtype)
    return file.getvalue()


WEBM = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878104")
"""As Chrome's MediaRecorder begins."""
M4A = bytes.fromhex("0000001c667479704d344120000002004d3441206973736f69736f32")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("wav", encoded("WAV")),
        ("wav", encoded("RF64")),
        ("wav", encoded("WAVEX", "PCM_24")),
        ("flac", encoded("FLAC")),
        ("ogg", encoded("OGG", "VORBIS")),
        ("ogg", encoded("OGG", "OPUS", 48_000)),
        ("mp3", encoded("MP3")),
        ("mp3", encoded("MP3", rate=16_000)),
        ("mp3", b"ID3\x04\0\0\0\0\x01\x23" + bytes(2_000)),
        ("aiff", encoded("AIFF")),
        ("caf", encoded("CAF")),
        ("webm", WEBM),
        ("mp4", M4A),
        ("aac", (bytes.fromhex("fff15080") + b"\x10\x3f\xfc" + bytes(122)) * 20),
    ],
)
@pytest.mark.parametrize("piece", [1, 320, 65_536])
def test_a_file_is_detected_once_by_its_signature(name: str, data: bytes, piece: int) -> None:
    detector = ContainerDetector()
    found = [detector.push(data[at : at + piece]) for at in range(0, min(len(data), 4_000), piece)]
    assert [each for each in found if each] == [name]


def test_a_file_in_mid_stream_is_not_detected() -> None:
    detector = ContainerDetector()
    assert detector.push(bytes(1_536)) is None
    assert detector.push(WEBM) is None


@pytest.mark.parametrize("level", [1, 30, 1_000, 30_000])
def test_noise_is_no_file(level: int) -> None:
    for samples in np.random.default_rng(level).normal(0, level, (500, 1_000)).clip(-32_768, 32_767):
        assert detect_container(samples.astype("<i2").tobytes()) is None
        assert detect_container((samples / 32_768).astype("<f4").tobytes()) is None


def test_constant_samples_are_no_file() -> None:
    for byte in range(256):
        for other in (0x00, 0xFF, 0xF1, 0xFB, 0x80, 0x7F, 0xD5):
            assert detect_container(bytes((byte, other)) * 1_000) is None


@pytest.mark.parametrize("start", [b"RIFF", b"OggS", b"fLaC", b"\x1a\x45\xdf\xa3", b"ID3", b"\xff\xfb\x90", b"FORM"])
def test_the_first_letters_of_a_signature_alone_are_no_file(start: bytes) -> None:
    assert detect_container(start + bytes(2_000)) is None
