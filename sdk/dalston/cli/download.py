"""A session's audio into a file, over several attempts and several runs of the command."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from dalston.cli.exits import CommandError, ExitCode
from dalston.client import Audio, Client
from dalston.errors import InvalidRequest, ServerError

Progress = Callable[[int, int], None]


class Download:
    """One file. What is here of it lies beside the target, under a name that says which file it is of and how long
    that is, until it is whole.

    Args:
        progress: is told the bytes that are here, and the bytes of the whole file.
    """

    def __init__(self, session_id: str, target: Path, *, linked: bool, progress: Progress) -> None:
        self._session_id = session_id
        self._linked = linked
        self._target = target
        self._prefix = f".{target.name}.{session_id}.{'linked' if linked else 'alone'}."
        self._progress = progress

    def run(self, client: Client) -> int:
        """Gives the size of the file in bytes.

        Raises:
            DalstonError: it did not get further for the timeout of the client. What is here is kept.
            CommandError: another process fetches the same file.
            OSError: it cannot be written.
        """
        part = self._part()
        if part is not None and not self._goes_on(client, part):
            part.unlink()  # It is joined from other sessions than before: one was deleted.
        if (part := self._part()) is None:
            self._fetch(client.sessions.audio(self._session_id, linked=self._linked), None)
        return self._finish()

    def _goes_on(self, client: Client, part: Path) -> bool:
        """Fetches what is behind a part, unless that is a part of another file."""
        position, size = part.stat().st_size, _size_in(part)
        if position >= size:
            return False
        audio = client.sessions.audio(self._session_id, linked=self._linked, start=position)
        try:
            return self._fetch(audio, part)
        except InvalidRequest as error:
            if error.reason != "INVALID_RANGE":
                raise
            return False

    def _fetch(self, audio: Audio, part: Path | None) -> bool:
        """Adds what comes to the part, or to a new one; False if the part is of a file of another size."""
        with closing(iter(audio)) as pieces:
            piece = next(pieces, b"")
            if audio.size is None:
                raise ServerError("the service does not say how long the audio is")
            if part is not None and _size_in(part) != audio.size:
                return False
            with _alone(part or self._target.with_name(f"{self._prefix}{audio.size}.part")) as file:
                position = file.seek(0, os.SEEK_END)
                while piece:
                    file.write(piece)
                    position += len(piece)
                    self._progress(position, audio.size)
                    piece = next(pieces, b"")
                file.flush()
                os.fsync(file.fileno())
        return True

    def _finish(self) -> int:
        part = self._part()
        assert part is not None  # noqa: S101 - it was just written
        position, size = part.stat().st_size, _size_in(part)
        if position != size:
            raise ServerError(f"the service sent {position} bytes and said it would be {size}")
        part.replace(self._target)
        return size

    def _part(self) -> Path | None:
        return min(self._target.parent.glob(f"{glob.escape(self._prefix)}*.part"), default=None)


def _size_in(part: Path) -> int:
    """The length of the whole file, as the name of its part has it."""
    digits = part.name.split(".")[-2]
    return int(digits) if digits.isdigit() else -1


@contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """A file to append to that no other process writes."""
    with part.open("ab") as file:
        with contextlib.suppress(ImportError):  # There is no such lock on Windows.
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError("another process fetches this file", ExitCode.NOT_NOW) from None
        yield file
