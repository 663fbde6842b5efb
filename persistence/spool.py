"""One session's directory in the spool: everything needed to finish it, in files that a person can read.

    session.json         what the session is and, once it has ended, how; replaced in one step
    utterances.jsonl     a line for every final, appended; a line torn by a crash is dropped
    audio.00001 ...      the audio as it came, cut where the parts of the stored file end

Appends are plain writes in the event loop's thread: they copy at most 64 KiB into the page cache, which is cheaper than
handing them to a thread, and what was written survives the process. Everything that may wait for the disk, the sync
before a rename above all, is synchronous here and called in a thread by those who use it.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from persistence.manifest import Manifest
from persistence.objects import PART_BYTES
from persistence.records import Conclusion, SessionStart
from persistence.transcript import Utterance, whole_lines
from persistence.wav import WavFormat

_MANIFEST = "session.json"
_UTTERANCES = "utterances.jsonl"
_SEGMENT = "audio.{:05d}"
_SEGMENT_PATTERN = "audio.[0-9]*"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class SessionSpool:
    """A session on disk. One writer; any number of readers afterwards."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        start = manifest.start
        self.wav = WavFormat(start.encoding, start.sample_rate, start.channels)
        self._segment = -1
        self._segment_number = 0
        self._segment_room = 0
        self._utterances = -1

    @classmethod
    def create(cls, home: Path, start: SessionStart) -> "SessionSpool":
        """A new directory under `home`, on disk with its session.json when this returns. Waits for the disk.

        Raises:
            OSError: the disk is full or broken, or the session is there already.
        """
        spool = cls(home / start.session_id, Manifest(start))
        spool.directory.mkdir()
        spool._write_manifest()
        _sync_directory(home)
        return spool

    @classmethod
    def open(cls, directory: Path) -> "SessionSpool | None":
        """The session that an earlier process left, or None where it had begun no session or had removed it.

        Raises:
            ValueError: session.json is damaged.
            OSError: the disk is broken.
        """
        try:
            manifest = Manifest.from_json((directory / _MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        return cls(directory, manifest)

    def append_audio(self, data: bytes) -> None:
        """Appends audio; all of it is in the page cache when this returns.

        Raises:
            OSError: the disk is full or broken; a part of `data` may have been written.
        """
        view = memoryview(data)
        while view:
            if self._segment_room == 0:
                self._next_segment()
            written = os.write(self._segment, view[: self._segment_room])
            self._segment_room -= written
            view = view[written:]

    def append_utterance(self, utterance: Utterance) -> None:
        """Appends a final; it is in the page cache when this returns.

        Raises:
            OSError: the disk is full or broken; the line may be torn.
        """
        if self._utterances < 0:
            self._utterances = os.open(self.directory / _UTTERANCES, _APPEND, 0o600)
        line = memoryview(utterance.to_line())
        while line:
            line = line[os.write(self._utterances, line) :]

    def conclude(self, conclusion: Conclusion) -> None:
        """Notes how the session ended and closes its files. Waits for the disk.

        Raises:
            OSError: the disk is full or broken.
        """
        self.close()
        self.manifest = Manifest(self.manifest.start, conclusion)
        self._write_manifest()

    def close(self) -> None:
        """Closes the files; calling it again does nothing."""
        for descriptor in (self._segment, self._utterances):
            if descriptor >= 0:
                os.close(descriptor)
        self._segment = self._utterances = -1
        self._segment_room = 0

    def segments(self) -> list[Path]:
        """The files of audio in order."""
        return sorted(self.directory.glob(_SEGMENT_PATTERN))

    def audio_bytes(self) -> int:
        """How much audio there is, whole frames: a crash may have cut the last message short."""
        size = sum(segment.stat().st_size for segment in self.segments())
        return size - size % self.wav.frame_bytes

    def utterances(self) -> list[Utterance]:
        """All finals that were written whole."""
        try:
            return list(whole_lines((self.directory / _UTTERANCES).read_bytes()))
        except FileNotFoundError:
            return []

    def last_change(self) -> datetime:
        """When the session was last heard of."""
        newest = max(path.stat().st_mtime for path in (self.directory, *self.directory.iterdir()))
        return datetime.fromtimestamp(newest, UTC)

    def parts(self) -> Iterator[bytes]:
        """The WAV file, in parts of PART_BYTES and a last one of at most that. Reads the disk.

        Raises:
            OSError: the disk is broken.
        """
        left = self.audio_bytes()
        tail = self.wav.padding(left)
        part = self.wav.header(left)
        for segment in self.segments():
            part += segment.read_bytes()[:left]
            left -= min(left, segment.stat().st_size)
            while len(part) >= PART_BYTES:
                yield part[:PART_BYTES]
                part = part[PART_BYTES:]
        part += tail
        if part:
            yield part

    def remove(self) -> None:
        """Removes the directory. Waits for the disk.

        session.json goes first: what is left of an interrupted removal is rubbish and not a shorter session.
        """
        self.close()
        (self.directory / _MANIFEST).unlink(missing_ok=True)
        _sync_directory(self.directory)
        remove_rubbish(self.directory)

    def _next_segment(self) -> None:
        if self._segment >= 0:
            os.close(self._segment)
            self._segment = -1
        # The first part holds the header, too.
        room = PART_BYTES if self._segment_number else PART_BYTES - self.wav.header_bytes
        self._segment = os.open(self.directory / _SEGMENT.format(self._segment_number + 1), _APPEND, 0o600)
        self._segment_number += 1
        self._segment_room = room

    def _write_manifest(self) -> None:
        temporary = self.directory / f"{_MANIFEST}.tmp"
        with temporary.open("wb") as file:
            file.write(self.manifest.to_json())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / _MANIFEST)
        _sync_directory(self.directory)


def remove_rubbish(directory: Path) -> None:
    """Removes a directory that holds no session, with its files."""
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
