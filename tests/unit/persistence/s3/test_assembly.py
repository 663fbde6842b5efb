"""Assembling the audio of a session: after any loss the audio before it is a complete file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.s3.assembly import assemble, contiguous_end, tail_slices
from persistence.s3.keys import Tail
from persistence.s3.layout import PART_BYTES, audio_range, first_byte, part_count
from persistence.session_values import StoredPart
from persistence.wav import WavFormat

WAV = WavFormat("pcm_s16le", 16000, 1)
FIRST_END = PART_BYTES - WAV.header_bytes


def a_part(number: int, size: int = PART_BYTES) -> StoredPart:
    return StoredPart("upload", number, f'"{number}"', size)


def tails_of(begin: int, end: int, step: int = 320_000) -> list[Tail]:
    return [Tail(at, min(step, end - at)) for at in range(begin, end, step)]


def test_a_short_session_is_assembled_from_its_tails() -> None:
    assembly = assemble(WAV, [], tails_of(0, 1_000_000))
    assert (assembly.audio_bytes, assembly.ready, assembly.missing) == (1_000_000, (), (1,))


def test_without_stored_audio_the_file_is_empty() -> None:
    assembly = assemble(WAV, [], [])
    assert (assembly.audio_bytes, assembly.missing) == (0, (1,))


def test_full_parts_are_kept_and_the_first_and_last_are_built() -> None:
    tails = [*tails_of(0, FIRST_END), *tails_of(first_byte(WAV, 4), first_byte(WAV, 4) + 640_000)]
    assembly = assemble(WAV, [a_part(2), a_part(3)], tails)
    assert assembly.audio_bytes == first_byte(WAV, 4) + 640_000
    assert [part.number for part in assembly.ready] == [2, 3]
    assert assembly.missing == (1, 4)


def test_audio_after_a_gap_is_left_out() -> None:
    tails = [*tails_of(0, FIRST_END), Tail(first_byte(WAV, 3) + 4, 100)]
    assembly = assemble(WAV, [a_part(2)], tails)
    assert assembly.audio_bytes == first_byte(WAV, 3)


def test_an_incomplete_sample_frame_is_left_out() -> None:
    assert assemble(WAV, [], [Tail(0, 101)]).audio_bytes == 100


@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_f32le", "mulaw", "alaw"])
@pytest.mark.parametrize("channels", [1, 2])
def test_full_parts_without_tails_after_them_are_kept(encoding: str, channels: int) -> None:
    """The machine failed between a part and the next tail: the file ends with the part."""
    wav = WavFormat(encoding, 48_000, channels)
    tails = tails_of(0, PART_BYTES - wav.header_bytes)
    assembly = assemble(wav, [a_part(2), a_part(3)], tails)
    assert assembly.audio_bytes == 3 * PART_BYTES - wav.header_bytes
    assert (assembly.missing, len(assembly.ready)) == ((1,), 2)


def test_the_padding_of_a_last_part_is_not_audio() -> None:
    wav = WavFormat("mulaw", 8_000, 1)
    audio_bytes = 2 * PART_BYTES + 1
    last = wav.file_bytes(audio_bytes) - 2 * PART_BYTES
    assembly = assemble(wav, [a_part(1), a_part(2), a_part(3, last)], [], row_bytes=audio_bytes)
    assert (assembly.audio_bytes, assembly.missing) == (audio_bytes, ())


def test_a_complete_upload_needs_no_further_parts() -> None:
    last = WAV.file_bytes(12_000_000) - 2 * PART_BYTES
    assembly = assemble(WAV, [a_part(1), a_part(2), a_part(3, last)], [])
    assert (assembly.audio_bytes, assembly.missing) == (12_000_000, ())


def test_a_first_part_with_another_length_is_built_again() -> None:
    assembly = assemble(WAV, [a_part(1), a_part(2)], tails_of(0, FIRST_END))
    assert assembly.missing == (1,)


@given(
    st.integers(0, 4 * PART_BYTES // 2).map(lambda samples: samples * 2),
    st.sets(st.integers(2, 4)),
    st.data(),
)
def test_every_missing_part_is_in_the_tails(audio_bytes: int, recorded: set[int], data: st.DataObject) -> None:
    """Whichever parts were recorded and tails are lost, the missing parts can be built."""
    full = [number for number in recorded if number * PART_BYTES - WAV.header_bytes <= audio_bytes]
    tails = tails_of(0, audio_bytes, 1_000_000)
    lost = data.draw(st.sets(st.sampled_from(range(len(tails))), max_size=3)) if tails else set()
    kept = [tail for index, tail in enumerate(tails) if index not in lost]
    assembly = assemble(WAV, [a_part(number) for number in full], kept)
    assert assembly.audio_bytes <= audio_bytes
    if not lost:
        assert assembly.audio_bytes == audio_bytes
    numbers = sorted([*assembly.missing, *(part.number for part in assembly.ready)])
    assert numbers == list(range(1, part_count(WAV, assembly.audio_bytes) + 1))
    for number in assembly.missing:
        begin, end = audio_range(WAV, number, assembly.audio_bytes)
        assert sum(stop - first for _, first, stop in tail_slices(kept, begin, end)) == max(0, end - begin)


def test_the_contiguous_end_stops_at_the_first_gap() -> None:
    assert contiguous_end([(0, 5), (3, 8), (9, 12)]) == 8
    assert contiguous_end([(1, 5)]) == 0
