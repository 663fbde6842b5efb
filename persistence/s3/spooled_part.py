"""A part of a stored file that is read from the spool while it is sent, and never in memory as a whole.

Given as bytes, 5 MiB are there more than once while a connection takes them: as they were read, and in what the
transport keeps of them.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

_CHECK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class SpooledPart:
    """A stretch of a file, and what goes before and after it."""

    path: Path
    first: int
    """Where the stretch begins in the file."""
    size: int
    before: bytes = b""
    after: bytes = b""

    def __len__(self) -> int:
        return len(self.before) + self.size + len(self.after)

    def open(self) -> BinaryIO:
        """A file of the part, to be closed by the caller; each attempt to send it needs its own.

        Reads everything once: what follows finds it in the page cache, and a disk that fails does so here. It waits for
        the disk.

        Raises:
            OSError: the disk is broken, or some of it is gone.
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
        assert self._file is not None  # noqa: S101 - there is a stretch
        self._file.seek(offset)
        size = self._file.readinto(view)
        if not size:
            raise FileNotFoundError("audio to be sent is not in the spool")
        return size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
