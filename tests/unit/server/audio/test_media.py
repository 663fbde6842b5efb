import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio.container import detect_container
from server.audio.media import MEDIA_TYPES, SNIFF_BYTES, SUPPORTED_FORMATS, id3_bytes, sniff
from tests.media_files import box, encoded, id3, pcm16, resampled, speech, wav


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("wav", wav(pcm16(speech(0.1)))),
        ("wav", wav(b"", form=b"RF64")),
        ("wav", wav(b"", form=b"RIFX")),
        ("flac", b"fLaC\0\0\0\x22" + bytes(34)),
        ("ogg", b"OggS\0\2" + bytes(100)),
        ("mp3", id3(100)),
        ("mp4", box(b"ftyp", b"M4A \0\0\2\0isom")),
        ("mp4", box(b"ftyp", b"qt  \0\0\2\0qt  ")),
        ("mp4", box(b"moov", bytes(100))),
        ("mp4", box(b"wide") + box(b"mdat", bytes(100))),
        ("mp4", box(b"mdat", bytes(100), size=0)),
        ("webm", bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d")),
        ("webm", b"\x1a\x45\xdf\xa3\x42\x82\x88matroska"),
        ("aiff", b"FORM\0\0\0\0AIFC"),
        ("caf", b"caff\0\1\0\0desc"),
        ("amr", b"#!AMR\n"),
        ("amr", b"#!AMR-WB\n"),
    ],
)
def test_a_format_is_recognised_by_its_first_bytes(name: str, head: bytes) -> None:
    assert sniff(head) == name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0",
        b"RIFF",
        b"#EXTM3U\n/etc/passwd",
        b"ffconcat version 1.0\nfile x",
        b"<?xml version='1.0'?><MPD>",
        b"<SMIL>",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1",
        b"[playlist]\nFile1=http://x",
        b"[Script Info]",
        b"WEBVTT\n\n00:00.000 --> 00:01.000",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0AVI LIST",
        b"PK\3\4",
        b"\x7fELF",
        b"%PDF-1.7",
        box(b"ftyp", b"heic\0\0\0\0mif1"),
        box(b"ftyp", b"avif\0\0\0\0mif1"),
        bytes.fromhex("3026b2758e66cf11"),
    ],
)
def test_other_files_are_not_recognised(head: bytes) -> None:
    assert sniff(head.ljust(2_000, b" ") if head else head) is None


def test_mpeg_audio_is_recognised_after_the_rest_of_a_frame() -> None:
    options = {"write_xing": "0", "id3v2_version": "0"}
    stream = encoded("mp3", "libmp3lame", resampled(speech(2.0), 44_100), 44_100, options=options)
    for cut in range(1, 900, 37):
        assert sniff(stream[cut:][:SNIFF_BYTES]) == "mp3"


@given(st.integers(0, 1 << 64))
def test_noise_is_not_recognised(seed: int) -> None:
    assert sniff(random.Random(seed).randbytes(SNIFF_BYTES)) is None


@given(st.binary(max_size=300))
def test_any_bytes_have_a_supported_format_or_none(head: bytes) -> None:
    assert sniff(head) in {None, *MEDIA_TYPES}


def test_every_file_that_is_sniffed_is_one_that_live_audio_detects() -> None:
    head = wav(pcm16(speech(0.1)))
    assert sniff(head) == detect_container(head)


def test_the_length_of_a_tag_includes_its_header_and_footer() -> None:
    assert id3_bytes(id3(300)) == 310 == len(id3(300))
    with_footer = bytearray(id3(300))
    with_footer[5] = 0x10
    assert id3_bytes(bytes(with_footer)) == 320
    for other in (b"", b"ID3", b"ID3\4\0\0\0\0\0\x80", b"TAG" + bytes(7)):
        assert id3_bytes(other) == 0


def test_the_message_names_every_format() -> None:
    assert set(MEDIA_TYPES) <= set(SUPPORTED_FORMATS.split(", "))
