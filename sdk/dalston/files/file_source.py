"""The file to transcribe: a path, an open file, or bytes."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from dalston.live.audio_stream import iterate_in_thread
from dalston.options import FileSource

PIECE_BYTES = 256 * 1024


class OpenFile:
    """A file that is read in pieces, and again from its beginning if it can be rewound.

    Args:
        source: a path; an open file, which is read from its current position; or the bytes of a file.

    Raises:
        TypeError: the source is none of them, or a file in text mode.
    """

    def __init__(self, source: FileSource) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._start: int | None = 0
        self._has_begun = False
        self.name = ""
        """The name of the file without its folder; empty if it has none."""
        self.size: int | None = None
        """In bytes; None if it is unknown. That of a path is known once the file is opened."""
        if isinstance(source, bytes | bytearray | memoryview):
            self._file, self.size = io.BytesIO(source), memoryview(source).nbytes
        elif isinstance(source, str | os.PathLike):
            self._path = Path(source)
            self.name = self._path.name
        elif hasattr(source, "read"):
            if isinstance(source, io.TextIOBase):
                raise TypeError("a file must be opened in binary mode")
            self._file = source
            self._start, self.size = _extent(source)
            self.name = _name_of(source)
        else:
            raise TypeError(f"{type(source).__name__} is not a file: a path, a binary file or bytes")

    @property
    def is_whole(self) -> bool:
        """Whether the pieces would be the whole file; False for a pipe of which a part is read."""
        return self._start is not None or not self._has_begun

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Opens the file; yields its pieces of at most 256 KiB, from the beginning.

        Raises:
            OSError: the file cannot be opened.
        """
        if self._path is None:
            assert self._file is not None  # noqa: S101 - for the type checker
            yield self._pieces(self._file, closes=False)
            return
        with cast(BinaryIO, await asyncio.to_thread(self._path.open, "rb")) as file:
            self._start, self.size = _extent(file)
            yield self._pieces(file, closes=True)

    async def _pieces(self, file: BinaryIO, *, closes: bool) -> AsyncGenerator[bytes, None]:
        self._has_begun = True
        if self._start is not None:
            file.seek(self._start)
        async with aclosing(iterate_in_thread(_read(file), closes=closes)) as pieces:
            async for piece in pieces:
                yield piece


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise TypeError(f"a file must yield bytes, not {type(piece).__name__}")
        yield bytes(piece)


def _extent(file: BinaryIO) -> tuple[int | None, int | None]:
    """The current position of a file, and the number of bytes from there to its end; None for a pipe."""
    try:
        if not file.seekable():
            return None, None
        start = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(start)
    except (AttributeError, OSError, ValueError):
        return None, None
    return start, max(0, end - start)


def _name_of(file: BinaryIO) -> str:
    with suppress(AttributeError, TypeError, ValueError):
        if isinstance(file.name, str):
            return Path(file.name).name
    return ""
