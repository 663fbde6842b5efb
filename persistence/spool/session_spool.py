"""One session's directory in the spool: everything needed to finish it, in files that a person can read.

    session.json         the start of the session and, once it has ended, its conclusion; replaced atomically. The
                         deletion of the directory begins by renaming it to session.json.removed
    utterances.jsonl     a line for every final, appended; a line torn by a crash is dropped
    audio.00001 ...      the audio as received, in segments that end where the parts of the stored file end

A segment of audio is deleted once S3 has its part. The first and the newest are kept until the end of the session:
part 1 is sent last, and the newest shows how much audio there is.

Appends are plain writes in the event loop's thread: they copy at most 64 KiB into the page cache, which is cheaper than
handing them to a thread, and what was written survives the process. Everything that may wait for the disk, above all
the sync before a rename, is synchronous here; callers run it in a thread.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from domain.transcript import Utterance, whole_lines
from persistence.s3 import layout
from persistence.s3.spooled_part import SpooledPart
from persistence.session_values import Conclusion, SessionStart
from persistence.spool.budget import SpoolBudget
from persistence.spool.manifest import Manifest

_MANIFEST = "session.json"
_REMOVED = "session.json.removed"
_UTTERANCES = "utterances.jsonl"
_SEGMENT = "audio.{:05d}"
_SEGMENT_PATTERN = "audio.[0-9]*"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class SessionSpool:
    """A session on disk. One writer; any number of readers afterwards."""

    def __init__(self, directory: Path, manifest: Manifest, budget: SpoolBudget | None = None) -> None:
        self.directory = directory
        self.manifest = manifest
        start = manifest.start
        self.wav = start.wav
        self._budget = budget or SpoolBudget(sys.maxsize)
        self._budgeted_bytes = 0
        self._written_bytes = 0
        self._kept_from = sys.maxsize
        self._segment = -1
        self._segment_number = 0
        # Where the audio that fits the open segment ends; 0 when none is open.
        self._segment_end = 0
        self._utterances = -1
        # Full segments, open until they are synced.
        self._full: list[int] = []
        self._has_new_audio = self._has_new_utterances = self._has_new_files = False

    @classmethod
    def create(cls, home: Path, start: SessionStart, budget: SpoolBudget | None = None) -> "SessionSpool":
        """A new directory under `home`, on disk with its session.json when this returns. Waits for the disk.

        Raises:
            OSError: the disk is full or broken, or the session exists already.
        """
        spool = cls(home / start.session_id, Manifest(start), budget)
        spool.directory.mkdir()
        try:
            spool._write_manifest()
            _sync_directory(home)
        except OSError:
            delete_directory(spool.directory)
            raise
        return spool

    @classmethod
    def open(cls, directory: Path, budget: SpoolBudget | None = None) -> "SessionSpool | None":
        """The session of an earlier process, or None where the directory holds none or its deletion had begun.

        Raises:
            ValueError: session.json is damaged, or missing although the session was not deleted.
            OSError: the disk is broken.
        """
        try:
            manifest = Manifest.from_json((directory / _MANIFEST).read_bytes())
        except FileNotFoundError:
            if (directory / _REMOVED).exists() or not _has_content(directory):
                return None
            raise ValueError("session.json is missing") from None
        spool = cls(directory, manifest, budget)
        spool._adopt()
        return spool

    @property
    def written_bytes(self) -> int:
        """Audio appended by this process."""
        return self._written_bytes

    def append_audio(self, data: bytes) -> None:
        """Appends audio: all of it is in the page cache when this returns, and nothing when it raises.

        Raises:
            OSError: the disk is full or broken, or the budget is used up.
        """
        self._budget.reserve(len(data))
        try:
            self._write_audio(memoryview(data))
        except OSError:
            self._budget.release(len(data))
            self._undo()
            raise
        self._written_bytes += len(data)
        self._budgeted_bytes += len(data)
        self._has_new_audio = True

    def append_utterance(self, utterance: Utterance) -> None:
        """Appends a final: it is in the page cache when this returns, and nothing of it when it raises.

        Raises:
            OSError: the disk is full or broken.
        """
        if self._utterances < 0:
            self._utterances = os.open(self.directory / _UTTERANCES, _APPEND, 0o600)
            self._has_new_files = True
        size = os.fstat(self._utterances).st_size
        try:
            line = memoryview(utterance.to_line())
            while line:
                line = line[os.write(self._utterances, line) :]
        except OSError:
            # A torn line would hide those that follow.
            os.ftruncate(self._utterances, size)
            raise
        self._has_new_utterances = True

    def conclude(self, conclusion: Conclusion) -> None:
        """Writes the conclusion of the session and closes its files; everything is on disk when this returns.

        Raises:
            OSError: the disk is full or broken.
        """
        self.close()
        self.manifest = Manifest(self.manifest.start, conclusion)
        sync_files(os.open(path, os.O_RDONLY) for path in (*self.segments(), *self.directory.glob(_UTTERANCES)))
        self._write_manifest()

    def close(self) -> None:
        """Closes the files; calling it again does nothing."""
        for descriptor in (self._segment, self._utterances, *self._full):
            if descriptor >= 0:
                os.close(descriptor)
        self._segment = self._utterances = -1
        self._segment_end = 0
        self._full = []

    def take_unsynced(self) -> list[int]:
        """Descriptors of the files that have changed since the last call, for `sync_files`, which closes them."""
        taken, self._full = self._full, []
        if self._has_new_audio and self._segment >= 0:
            taken.append(os.dup(self._segment))
        if self._has_new_utterances and self._utterances >= 0:
            taken.append(os.dup(self._utterances))
        if self._has_new_files:
            taken.append(os.open(self.directory, os.O_RDONLY))
        self._has_new_audio = self._has_new_utterances = self._has_new_files = False
        return taken

    def segments(self) -> list[Path]:
        """The files of audio in order."""
        return sorted(self.directory.glob(_SEGMENT_PATTERN))

    def audio_bytes(self) -> int:
        """The audio in bytes, whole sample frames: a crash may have truncated the last message. Reads the disk."""
        segments = self.segments()
        if not segments:
            return 0
        newest = segments[-1]
        size = layout.first_byte(self.wav, _number(newest)) + newest.stat().st_size
        return size - size % self.wav.frame_bytes

    def read_audio_or_none(self, begin: int, end: int) -> bytes | None:
        """The audio of a range within one part, or None if it is not complete. Reads the disk.

        Raises:
            OSError: the disk is broken.
        """
        number = layout.part_of(self.wav, begin)
        try:
            with (self.directory / _SEGMENT.format(number)).open("rb") as file:
                file.seek(begin - layout.first_byte(self.wav, number))
                data = file.read(end - begin)
        except FileNotFoundError:
            return b"" if begin == end else None
        return data if len(data) == end - begin else None

    def spooled_part(self, begin: int, end: int) -> SpooledPart | None:
        """The same as `read_audio_or_none`, but read when it is sent. Reads the disk."""
        number = layout.part_of(self.wav, begin)
        path, first = self.directory / _SEGMENT.format(number), begin - layout.first_byte(self.wav, number)
        if begin == end or (path.exists() and path.stat().st_size >= first + end - begin):
            return SpooledPart(path, first, end - begin)
        return None

    def has_audio(self, begin: int, end: int) -> bool:
        """Whether all the audio of a range, which may be empty, is in the spool. Reads the disk."""
        for first, stop in layout.split(self.wav, begin, end):
            number = layout.part_of(self.wav, first)
            path = self.directory / _SEGMENT.format(number)
            if not path.exists() or path.stat().st_size < stop - layout.first_byte(self.wav, number):
                return False
        return True

    def segment_with(self, position: int) -> tuple[int, bytes]:
        """The start of the segment with this byte of audio, and the segment's content. Reads the disk."""
        number = layout.part_of(self.wav, position)
        try:
            data = (self.directory / _SEGMENT.format(number)).read_bytes()
        except FileNotFoundError:
            data = b""
        return layout.first_byte(self.wav, number), data

    def read_audio(self, offset: int, size: int) -> bytes:
        """`size` bytes of audio from `offset` on, which must have been appended and kept. Reads the disk.

        Raises:
            OSError: the disk is broken, or some of the audio is missing.
        """
        pieces = [self.read_audio_or_none(*piece) for piece in layout.split(self.wav, offset, offset + size)]
        found = [piece for piece in pieces if piece is not None]
        if len(found) != len(pieces):
            raise FileNotFoundError("audio to be read back is not in the spool")
        return b"".join(found)

    def keep_from(self, offset: int | None) -> None:
        """Keeps audio from `offset` on, stored or not, because it will be read back; None: none will be."""
        self._kept_from = sys.maxsize if offset is None else offset

    def utterances(self) -> list[Utterance]:
        """All finals that were written completely."""
        try:
            return list(whole_lines((self.directory / _UTTERANCES).read_bytes()))
        except FileNotFoundError:
            return []

    def last_change(self) -> datetime:
        """The time of the last change of a file of the session."""
        newest = max(path.stat().st_mtime for path in (self.directory, *self.directory.iterdir()))
        return datetime.fromtimestamp(newest, UTC)

    def may_delete_segment(self, number: int) -> bool:
        """Whether a segment may be deleted once S3 has its part."""
        return 1 < number < self._segment_number and layout.end_byte(self.wav, number) <= self._kept_from

    def delete_segment(self, number: int) -> None:
        """Deletes a segment, if it exists."""
        path = self.directory / _SEGMENT.format(number)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return
        self._release(size)

    def delete(self) -> None:
        """Deletes the directory. Waits for the disk.

        session.json is renamed first: the remains of an interrupted deletion must not look like a shorter session.
        """
        self.close()
        with suppress(FileNotFoundError):
            (self.directory / _MANIFEST).replace(self.directory / _REMOVED)
        _sync_directory(self.directory)
        delete_directory(self.directory)
        self._release(self._budgeted_bytes)

    def _release(self, size: int) -> None:
        self._budgeted_bytes -= size
        self._budget.release(size)

    def _adopt(self) -> None:
        segments = self.segments()
        if segments:
            self._segment_number = _number(segments[-1])
            self._written_bytes = self.audio_bytes()
            self._budgeted_bytes = sum(segment.stat().st_size for segment in segments)
            self._budget.adopt(self._budgeted_bytes)

    def _write_audio(self, view: memoryview) -> None:
        position = self._written_bytes
        while view:
            if position >= self._segment_end:
                self._next_segment(layout.part_of(self.wav, position))
            written = os.write(self._segment, view[: self._segment_end - position])
            position += written
            view = view[written:]

    def _next_segment(self, number: int) -> None:
        descriptor = os.open(self.directory / _SEGMENT.format(number), _APPEND, 0o600)
        if self._segment >= 0:
            self._full.append(self._segment)
        self._segment, self._segment_number = descriptor, number
        self._segment_end = layout.end_byte(self.wav, number)
        self._has_new_files = True

    def _undo(self) -> None:
        """Truncates what a failed append has written."""
        number = layout.part_of(self.wav, max(0, self._written_bytes - 1))
        if self._segment_number > number:
            os.close(self._segment)
            for each in range(number + 1, self._segment_number + 1):
                (self.directory / _SEGMENT.format(each)).unlink(missing_ok=True)
            # The next append opens the previous segment again.
            self._segment, self._segment_number, self._segment_end = -1, 0, 0
        path = self.directory / _SEGMENT.format(number)
        if path.exists():
            os.truncate(path, self._written_bytes - layout.first_byte(self.wav, number))

    def _write_manifest(self) -> None:
        temporary = self.directory / f"{_MANIFEST}.tmp"
        with temporary.open("wb") as file:
            file.write(self.manifest.to_json())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / _MANIFEST)
        _sync_directory(self.directory)


def sync_files(descriptors: Iterable[int]) -> None:
    """Waits until files are on disk and closes all of them, also after an error.

    Raises:
        OSError: the disk is full or broken.
    """
    failure: OSError | None = None
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        except OSError as error:
            failure = error
        finally:
            os.close(descriptor)
    if failure is not None:
        raise failure


def delete_directory(directory: Path) -> None:
    """Deletes a directory with its files."""
    for path in directory.iterdir():
        # The marker of the deletion is deleted last.
        if path.name != _REMOVED:
            path.unlink()
    (directory / _REMOVED).unlink(missing_ok=True)
    directory.rmdir()


def _has_content(directory: Path) -> bool:
    return any(path.stat().st_size for path in (*directory.glob(_SEGMENT_PATTERN), *directory.glob(_UTTERANCES)))


def _number(segment: Path) -> int:
    return int(segment.suffix[1:])


def _sync_directory(directory: Path) -> None:
    sync_files([os.open(directory, os.O_RDONLY)])
