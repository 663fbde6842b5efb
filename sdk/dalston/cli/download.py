"""Downloads a session's audio to a file, and resumes across attempts and runs of the command."""

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
    """The download of one file. Until it is complete, a part file next to the target holds the bytes received; its name
    contains the session and the size of the whole file.

    Args:
        progress: called with the bytes received and the size of the whole file.
    """

    def __init__(self, session_id: str, target: Path, *, linked: bool, progress: Progress) -> None:
        self._session_id = session_id
        self._linked = linked
        self._target = target
        self._prefix = f".{target.name}.{session_id}.{'linked' if linked else 'alone'}."
        self._progress = progress

    def run(self, client: Client) -> int:
        """Downloads the file. Returns its size in bytes.

        Raises:
            DalstonError: there was no progress within the timeout of the client. The part file is kept.
            CommandError: another process downloads the same file.
            OSError: the file cannot be written.
        """
        part = self._part()
        if part is not None and not self._resume(client, part):
            part.unlink()  # The joined recording has changed, because one of its sessions was deleted.
        if (part := self._part()) is None:
            self._fetch(client.sessions.audio(self._session_id, linked=self._linked), None)
        return self._finish()

    def _resume(self, client: Client, part: Path) -> bool:
        """Downloads the rest of a part file. Returns False if it is part of a different file."""
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
        """Appends the audio to the part file or a new one. Returns False if the size of the whole file has changed."""
        with closing(iter(audio)) as pieces:
            piece = next(pieces, b"")
            if audio.size is None:
                raise ServerError("the service did not state the size of the audio")
            if part is not None and _size_in(part) != audio.size:
                return False
            with _locked(part or self._target.with_name(f"{self._prefix}{audio.size}.part")) as file:
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
            raise ServerError(f"the service sent {position} of {size} bytes")
        part.replace(self._target)
        return size

    def _part(self) -> Path | None:
        return min(self._target.parent.glob(f"{glob.escape(self._prefix)}*.part"), default=None)


def _size_in(part: Path) -> int:
    """The size of the whole file, from the name of the part file."""
    digits = part.name.split(".")[-2]
    return int(digits) if digits.isdigit() else -1


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Opens a file for appending and locks it against other processes."""
    with part.open("ab") as file:
        with contextlib.suppress(ImportError):  # Windows has no such lock.
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError("another process is downloading this file", ExitCode.NOT_NOW) from None
        yield file
