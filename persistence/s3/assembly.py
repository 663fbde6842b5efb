"""The audio of a session that can be assembled from its parts and tails in S3. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from persistence.s3.keys import Tail
from persistence.s3.layout import PART_BYTES, audio_range, first_byte, part_count
from persistence.session_values import StoredPart
from persistence.wav import WavFormat


@dataclass(frozen=True, slots=True)
class Assembly:
    """A WAV file made of parts that S3 has, and of parts to be built from tail objects."""

    audio_bytes: int
    """The contiguous audio from the start, whole sample frames."""
    ready: tuple[StoredPart, ...]
    """Parts that can be used as they are."""
    missing: tuple[int, ...]
    """Numbers of parts to be built; their audio is in the tails."""


def assemble(wav: WavFormat, parts: Sequence[StoredPart], tails: Iterable[Tail], row_bytes: int = 0) -> Assembly:
    """Finds the longest file that can be assembled.

    `row_bytes` is the amount of audio in the session's row. It is exact where the session's own process has put a last
    part, because that process writes the row first. Part 1 and a last part are built again wherever their tails exist:
    they depend on the length of the audio, which must be the length that is found here.
    """
    known = {part.number: part for part in parts}
    tail_ranges = [(tail.first_byte, tail.end) for tail in tails]
    in_tails = contiguous_end(tail_ranges)
    covered = tail_ranges + [_audio_of(wav, part, (row_bytes, in_tails)) for part in parts]
    end = contiguous_end(covered)
    end -= end % wav.frame_bytes
    ready, missing = [], []
    for number in range(1, part_count(wav, end) + 1):
        part = known.get(number)
        begin, stop = audio_range(wav, number, end)
        is_last = number == part_count(wav, end)
        size = PART_BYTES if not is_last else wav.file_bytes(end) - (number - 1) * PART_BYTES
        can_be_built = _is_covered(tail_ranges, begin, stop)
        depends_on_length = part is not None and (number == 1 or part.size < PART_BYTES)
        if part is None or part.size != size or (depends_on_length and can_be_built):
            if not can_be_built and begin < stop:
                # The part has a wrong length: only the audio before it can be assembled.
                before = [each for each in parts if each.number < number]
                return assemble(wav, before, _before(tail_ranges, begin), row_bytes)
            missing.append(number)
        else:
            ready.append(part)
    return Assembly(end, tuple(ready), tuple(missing))


def contiguous_end(ranges: Iterable[tuple[int, int]]) -> int:
    """The end of the contiguous coverage from 0 on."""
    end = 0
    for first, last in sorted(ranges):
        if first > end:
            break
        end = max(end, last)
    return end


def tail_slices(tails: Iterable[Tail], begin: int, end: int) -> list[tuple[Tail, int, int]]:
    """The slices of tails that make up the audio from `begin` to `end`: offsets within each tail."""
    pieces = []
    for tail in sorted(tails):
        if tail.first_byte <= begin < min(tail.end, end):
            stop = min(tail.end, end)
            pieces.append((tail, begin - tail.first_byte, stop - tail.first_byte))
            begin = stop
    return pieces


def _audio_of(wav: WavFormat, part: StoredPart, lengths: Iterable[int]) -> tuple[int, int]:
    """The range of audio in a part, without padding if it is the last part of a recording of one of these lengths."""
    first = first_byte(wav, part.number)
    header = wav.header_bytes if part.number == 1 else 0
    end = first + part.size - header
    if part.size < PART_BYTES and any(wav.padding(length) and end == length + 1 for length in lengths):
        end -= 1
    return first, end


def _is_covered(ranges: Iterable[tuple[int, int]], begin: int, end: int) -> bool:
    for first, last in sorted(ranges):
        if first <= begin < last:
            begin = last
    return begin >= end


def _before(ranges: Iterable[tuple[int, int]], end: int) -> list[Tail]:
    return [Tail(first, min(last, end) - first) for first, last in ranges if first < end]
