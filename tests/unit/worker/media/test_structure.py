import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media_files import box, chunk, id3, ogg_page, pcm16, speech, wav
from worker.media.structure import Tail, after_tags, boxes, is_cut_off, states_length, wav_bytes

AUDIO = pcm16(speech(0.1))


def test_a_tail_hides_the_bytes_before_it() -> None:
    tail = Tail(io.BytesIO(b"hidden0123456789"), 6)
    assert tail.read(4) == b"0123"
    assert (tail.tell(), tail.seek(2), tail.read(2)) == (4, 2, b"23")
    assert (tail.seek(1, 1), tail.read(1)) == (5, b"5")
    assert (tail.seek(-1, 2), tail.read()) == (9, b"9")
    assert tail.read() == b""


def test_a_position_beyond_any_file_is_its_end() -> None:
    tail = Tail(io.BytesIO(b"0123"), 2)
    assert tail.seek((1 << 64) - 1) > 1 << 50
    assert tail.read(1) == b""
    assert list(boxes(io.BytesIO(struct.pack(">I4sQ", 1, b"mdat", (1 << 64) - 1)))) == [(b"mdat", 0, (1 << 64) - 1)]


def test_tags_are_skipped_one_after_the_other() -> None:
    assert after_tags(io.BytesIO(id3(10) + id3(200) + b"fLaC")).read() == b"fLaC"
    assert after_tags(io.BytesIO(b"fLaC")).read() == b"fLaC"
    assert after_tags(io.BytesIO(id3(1_000)[:50])).read() == b""


@pytest.mark.parametrize(
    ("expected", "file"),
    [
        (len(AUDIO), wav(AUDIO)),
        (len(AUDIO), wav(AUDIO, before=chunk(b"JUNK", bytes(5)))),
        (1 << 30, wav(AUDIO, data_size=1 << 30)),
        (None, wav(AUDIO, data_size=0)),
        (None, wav(AUDIO, data_size=0, after=chunk(b"LIST", bytes(40)))),
        (None, wav(AUDIO, data_size=0xFFFFFFFF)),
        (None, wav(AUDIO, data_size=0xFFFFFFFF - 100)),
        (None, wav(AUDIO, data_size=0x7FFFFFFF)),
        (None, wav(AUDIO)[:40]),
        (0, wav(b"")),
        (0, wav(b"", after=chunk(b"LIST", bytes(41)))),
        (0, wav(b"", after=chunk(b"LIST", bytes(40)) + chunk(b"id3 ", bytes(7)))),
        (
            5 << 30,
            wav(AUDIO, form=b"RF64", data_size=0xFFFFFFFF, before=chunk(b"ds64", struct.pack("<QQQ", 0, 5 << 30, 0))),
        ),
        (None, wav(AUDIO, form=b"RF64", data_size=0xFFFFFFFF, before=chunk(b"ds64", bytes(8) + b"\xff" * 8))),
        (None, b"RIFF"),
        (None, b""),
    ],
)
def test_the_length_in_a_wav_is_what_its_header_states(expected: int | None, file: bytes) -> None:
    assert wav_bytes(io.BytesIO(file)) == expected


def test_a_file_is_cut_off_if_its_structure_ends_after_it() -> None:
    movie = box(b"ftyp", bytes(8)) + box(b"mdat", bytes(100))
    first, last = ogg_page([b"a"], 1, 0, 0, 2), ogg_page([b"b" * 100], 1, 1, 9, 4)
    for name, whole in (("mp4", movie), ("wav", wav(AUDIO)), ("ogg", first + last)):
        assert not is_cut_off(io.BytesIO(whole), name)
        assert is_cut_off(io.BytesIO(whole[:-1]), name)
    assert is_cut_off(io.BytesIO(first), "ogg")
    assert not is_cut_off(io.BytesIO(movie[:-1]), "flac")


def test_boxes_have_short_long_and_open_lengths() -> None:
    long = struct.pack(">I4sQ", 1, b"free", 20) + bytes(4)
    movie = box(b"ftyp", bytes(8)) + long + box(b"mdat", bytes(10), size=0)
    assert list(boxes(io.BytesIO(movie))) == [(b"ftyp", 0, 16), (b"free", 16, 36), (b"mdat", 36, 54)]
    assert list(boxes(io.BytesIO(box(b"ftyp", size=3)))) == []


@given(st.sampled_from(["mp4", "wav", "ogg", "flac"]), st.binary(max_size=200))
def test_any_bytes_have_an_answer(name: str, data: bytes) -> None:
    start = {"wav": b"RIFF\0\0\0\0WAVE", "ogg": b"OggS"}.get(name, b"")
    file = io.BytesIO(start + data)
    assert is_cut_off(file, name) in (True, False)
    assert states_length(file, name, 1) in (True, False)
    list(boxes(file))
