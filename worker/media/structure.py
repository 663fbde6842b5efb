"""Reads the outer structure of files: how they are cut off, and where their audio begins. Pure, over an open file."""

import os
from collections.abc import Iterator
from typing import Final, Protocol

from server.audio.media import SNIFF_BYTES, id3_bytes

_MAX_OFFSET: Final = 1 << 60
_MAX_TAGS: Final = 8
_MAX_BOXES: Final = 100_000
_MAX_CHUNKS: Final = 10_000
_LONG: Final = 0xFFFFFFFF
"""A length that the chunk `ds64` contains, or that is unknown."""
_OGG_TAIL_BYTES: Final = 128 * 1024
"""Two of the largest pages of Ogg."""
_OGG_END: Final = 0x04
_XING_BYTES: Final = 4096


class File(Protocol):
    """A seekable file."""

    def read(self, size: int = -1, /) -> bytes | None: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Tail:
    """A file without its first bytes: the demuxer sees neither them nor the file before them."""

    def __init__(self, file: File, start: int) -> None:
        self._file = file
        self._start = start
        file.seek(start)

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to `size` bytes; empty at the end."""
        return self._file.read(size) or b""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves as `io.IOBase.seek` does, and returns the position. Damaged indexes lead beyond what files can have."""
        if whence == os.SEEK_SET:
            return self._file.seek(self._start + min(offset, _MAX_OFFSET)) - self._start
        return self._file.seek(offset, whence) - self._start

    def tell(self) -> int:
        """The position, counted from the beginning of this tail."""
        return self._file.tell() - self._start


def after_tags(file: File) -> Tail:
    """The file after its ID3v2 tags, which may have many megabytes and contain anything."""
    start = 0
    for _ in range(_MAX_TAGS):
        file.seek(start)
        length = id3_bytes(file.read(10) or b"")
        if not length:
            break
        start += length
    return Tail(file, start)


def head_of(file: File) -> bytes:
    """The first bytes, as many as `sniff` needs."""
    file.seek(0)
    head = file.read(SNIFF_BYTES) or b""
    file.seek(0)
    return head


def size_of(file: File) -> int:
    """Length in bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def boxes(file: File) -> Iterator[tuple[bytes, int, int]]:
    """The outer boxes of an MP4: name, position of the first byte, and that after the last according to the header."""
    size = size_of(file)
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16) or b""
        if len(head) < 8:
            return
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        elif length == 0:
            length = size - at
        if length < 8:
            return
        yield head[4:8], at, at + length
        at += length
        if at > size:
            return


def is_cut_off(file: File, name: str) -> bool:
    """Whether the file ends before the end that its structure requires. False if its format does not show that."""
    size = size_of(file)
    if name == "mp4":
        return any(end > size for _, _, end in boxes(file))
    if name == "ogg":
        return not _ogg_is_complete(file, size)
    if name == "wav":
        stated = wav_bytes(file)
        return stated is not None and file.tell() + stated > size
    return False


def wav_bytes(file: File) -> int | None:
    """The length of the audio that the header of a WAV states; None if it states none or cannot be read.

    Programs that write to a pipe leave 0, or about 2^31 or 2^32. A length of 0 is one only if other chunks follow the
    audio up to the end of the file. The file is at the first byte of the audio afterwards.
    """
    size, long_size = size_of(file), None
    for name, start, length in _chunks(file, 12, size):
        if name == b"ds64":
            long_size = int.from_bytes((file.read(16) or b"")[8:16], "little")
        elif name == b"data":
            if length == _LONG and long_size is not None:
                length = long_size
            if length == 0:
                end = max((end for _, end in _ends(file, start, size)), default=start)
                length = 0 if end == size else _LONG
            file.seek(start)
            return None if length >= 1 << 62 or _is_placeholder(length) else length
    return None


def _chunks(file: File, at: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a RIFF file: name, position of the content, stated length. The file is at the content."""
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(8) or b""
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], at + 8, length
        at += 8 + length + length % 2
        if at > size:
            return


def _ends(file: File, at: int, size: int) -> Iterator[tuple[bytes, int]]:
    """Names and ends of the chunks from `at`."""
    for name, start, length in _chunks(file, at, size):
        yield name, min(start + length + length % 2, max(size, start + length))


def _is_placeholder(length: int) -> bool:
    return 0xFFFFF000 <= length <= _LONG or 0x7FFFF000 <= length <= 0x80000000


def states_length(file: File, name: str, streams: int) -> bool:
    """Whether the duration that libav reports is one that the file states, and not an estimate by its size."""
    if name == "mp3":
        file.seek(0)
        head = file.read(_XING_BYTES) or b""
        return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))
    if name == "webm":
        return streams == 1  # The duration is that of the longest stream.
    return name in ("aiff", "caf", "flac", "mp4")


def _ogg_is_complete(file: File, size: int) -> bool:
    """Whether the last page ends a stream."""
    start = max(0, size - _OGG_TAIL_BYTES)
    file.seek(start)
    tail = file.read(_OGG_TAIL_BYTES) or b""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 or not tail[at + 5] & _OGG_END:
        return False
    segments = tail[at + 26]
    lengths = tail[at + 27 : at + 27 + segments]
    return len(lengths) == segments and at + 27 + segments + sum(lengths) <= len(tail)
