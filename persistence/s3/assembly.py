"""What of a session's audio can be put together from what S3 has of it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from persistence.records import StoredPart
from persistence.s3.keys import Tail
from persistence.s3.layout import PART_BYTES, audio_range, first_byte, part_count
from persistence.wav import WavFormat


@dataclass(frozen=True, slots=True)
class Assembly:
    """A WAV file made of parts that S3 has and of parts to be made from tail objects."""

    audio_bytes: int
    """Whole frames, without a gap from the first."""
    ready: tuple[StoredPart, ...]
    """Parts that can stay as they are."""
    missing: tuple[int, ...]
    """Numbers of parts to be made; their audio is in the tails."""


def assemble(wav: WavFormat, parts: Sequence[StoredPart], tails: Iterable[Tail], row_bytes: int = 0) -> Assembly:
    """Finds the longest file that what S3 has can make.

    `row_bytes` is how much audio the session's row tells of. It is exact where the session's own process put a last
    part: it writes the row first. Part 1 and a last part are made again wherever their tails are there: what they say
    of the length must be what is found here, not what whoever put them had in mind.
    """
    known = {part.number: part for part in parts}
    held = [(tail.first_byte, tail.end) for tail in tails]
    in_tails = contiguous_end(held)
    covered = held + [_audio_of(wav, part, (row_bytes, in_tails)) for part in parts]
    end = contiguous_end(covered)
    end -= end % wav.frame_bytes
    ready, missing = [], []
    for number in range(1, part_count(wav, end) + 1):
        part = known.get(number)
        begin, stop = audio_range(wav, number, end)
        is_last = number == part_count(wav, end)
        size = PART_BYTES if not is_last else wav.file_bytes(end) - (number - 1) * PART_BYTES
        can_be_made = _is_covered(held, begin, stop)
        tells_length = part is not None and (number == 1 or part.size < PART_BYTES)
        if part is None or part.size != size or (tells_length and can_be_made):
            if not can_be_made and begin < stop:
                # A part of another length than it should have: what is before it can be put together.
                before = [each for each in parts if each.number < number]
                return assemble(wav, before, _before(held, begin), row_bytes)
            missing.append(number)
        else:
            ready.append(part)
    return Assembly(end, tuple(ready), tuple(missing))


def contiguous_end(ranges: Iterable[tuple[int, int]]) -> int:
    """How far the ranges cover everything from 0 on."""
    end = 0
    for first, last in sorted(ranges):
        if first > end:
            break
        end = max(end, last)
    return end


def tail_slices(tails: Iterable[Tail], begin: int, end: int) -> list[tuple[Tail, int, int]]:
    """Which bytes of which tails make up the audio from `begin` to `end`: offsets within each tail."""
    pieces = []
    for tail in sorted(tails):
        if tail.first_byte <= begin < min(tail.end, end):
            stop = min(tail.end, end)
            pieces.append((tail, begin - tail.first_byte, stop - tail.first_byte))
            begin = stop
    return pieces


def _audio_of(wav: WavFormat, part: StoredPart, lengths: Iterable[int]) -> tuple[int, int]:
    """What audio a part has: without its padding, if it is the last of a recording of one of these lengths."""
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
