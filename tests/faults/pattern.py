"""Audio in which every sample frame states its session and its position.

Mono 16-bit PCM. Two samples make a mark of 4 bytes: the low 26 bits count marks from the session's first byte (37 hours
at 16 kHz), the high 6 bits are the session's tag. A byte that is missing, doubled, moved or of another session's is
found, and the place named.
"""

from dataclasses import dataclass

import numpy as np

MARK_BYTES = 4
_INDEX_BITS = 26
_INDEX_MASK = (1 << _INDEX_BITS) - 1
TAGS = 1 << (32 - _INDEX_BITS)
BYTES_PER_SECOND = 32_000
"""Of mono 16-bit audio at 16 kHz."""


def audio(tag: int, start: int, size: int) -> bytes:
    """`size` bytes of session `tag` (taken modulo `TAGS`) from byte `start` on; both multiples of 4."""
    if start % MARK_BYTES or size % MARK_BYTES:
        raise ValueError("marks are 4 bytes")
    indices = np.arange(start // MARK_BYTES, (start + size) // MARK_BYTES, dtype=np.uint32)
    return (indices | np.uint32((tag % TAGS) << _INDEX_BITS)).astype("<u4").tobytes()


def position_of(data: bytes) -> int:
    """Where in its session the mark at the start of `data` belongs, in bytes."""
    return int(int.from_bytes(data[:MARK_BYTES], "little") & _INDEX_MASK) * MARK_BYTES


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The first place where audio is not what it should be."""

    position: int
    """In bytes of audio."""
    what: str

    def __str__(self) -> str:
        return f"at byte {self.position} ({self.position / BYTES_PER_SECOND:.3f} s): {self.what}"


def disagreement(tag: int, data: bytes, start: int = 0) -> Disagreement | None:
    """The first place where `data` is not the audio of session `tag` from byte `start` on, or None.

    A last mark cut short is compared as far as it goes: a crash may end a file anywhere.
    """
    whole = len(data) - len(data) % MARK_BYTES
    expected = audio(tag, start, len(data) + -len(data) % MARK_BYTES)
    if data == expected[: len(data)]:
        return None
    marks = np.frombuffer(data[:whole], "<u4")
    wrong = np.flatnonzero(marks != np.frombuffer(expected[:whole], "<u4"))
    if not len(wrong):
        return Disagreement(start + whole, "the last mark, cut short, is another's")
    first = int(wrong[0])
    return Disagreement(start + first * MARK_BYTES, _describe(tag, int(marks[first]), start + first * MARK_BYTES, data))


def _describe(tag: int, mark: int, position: int, data: bytes) -> str:
    theirs, index = mark >> _INDEX_BITS, mark & _INDEX_MASK
    if mark == 0:
        return "zeros"
    if theirs == tag % TAGS:
        found = index * MARK_BYTES
        kind = "bytes are missing" if found > position else "bytes come again"
        return f"byte {found} is here: {abs(found - position)} {kind}"
    if position % MARK_BYTES == 0:
        for shift in (1, 2, 3):
            place = data.find(audio(tag, position + MARK_BYTES, MARK_BYTES), shift)
            if place >= 0 and place % MARK_BYTES:
                return f"the marks are shifted by {place % MARK_BYTES} bytes from here on"
    return f"a mark of session {theirs}, byte {index * MARK_BYTES}" if theirs < TAGS else "no mark"
