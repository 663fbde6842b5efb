"""A part of a stored file that is read from the spool while it is sent, and never in memory as a whole.

With a part of 5 MiB as bytes, the transport's buffer would hold a second copy while it is sent.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

_CHECK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class SpooledPart:
    """A range of a file, and the bytes before and after it."""

    path: Path
    first: int
    """The offset of the range in the file."""
    size: int
    before: bytes = b""
    after: bytes = b""

    def __len__(self) -> int:
        return len(self.before) + self.size + len(self.after)

    def open(self) -> BinaryIO:
        """A file of the part, which the caller closes; each attempt to send the part needs its own.

        Reads everything once, so that a failing disk fails here, and later reads hit the page cache. Waits for the
        disk.

        Raises:
            OSError: the disk is broken, or some of the audio is missing.
        """
        reader = _Reader(self)
        try:
            buffer = bytearray(_CHECK_BYTES)
            while reader.readinto(buffer):
                pass
            reader.seek(0)
        except OSError:
            reader.close()
            raise
        return cast(BinaryIO, reader)


class _Reader(io.RawIOBase):
    def __init__(self, part: SpooledPart) -> None:
        self._part = part
        self._position = 0
        self._file = part.path.open("rb", buffering=0) if part.size else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._part)}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # narrower than a Buffer
        part, view = self._part, memoryview(buffer)
        at = self._position - len(part.before)
        if 0 <= at < part.size:
            size = self._read_file(view[: part.size - at], part.first + at)
        else:
            rest = part.before[self._position :] if at < 0 else part.after[at - part.size :]
            size = min(len(rest), len(view))
            view[:size] = rest[:size]
        self._position += size
        return size

    def _read_file(self, view: memoryview, offset: int) -> int:
        assert self._file is not None  # noqa: S101 - the range is not empty
        self._file.seek(offset)
        size = self._file.readinto(view)
        if not size:
            raise FileNotFoundError("audio to be sent is not in the spool")
        return size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
