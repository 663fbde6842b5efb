"""Bounded log files: the output of a process is read from a pipe and written here, so that no process has to reopen a
file, and a file is rotated between two lines."""

import os
import select
import threading
import time
from pathlib import Path

FILE_BYTES = 10 * 1024 * 1024
"""A log file of this size is rotated at the end of its line."""
OLD_FILES = 4
"""How many rotated files are kept: `.1` is the newest."""
MAX_LINE_BYTES = 1024 * 1024
"""A longer line is divided between two files, so that a line without an end is bounded too."""

_CHUNK_BYTES = 64 * 1024
_TAIL_BYTES = 64 * 1024
_DRAIN_SECONDS = 2.0
# For all files of this process: two pumps may write to one file, that of a process and that of its successor, while a
# child of the former still runs.
_writing = threading.Lock()


def rotate(path: Path) -> None:
    """Renames a file to `.1`, the file that had this name to `.2`, and so on; the oldest is removed."""
    for number in range(OLD_FILES, 0, -1):
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.rename(path.with_name(f"{path.name}.{number}"))


def append(path: Path, data: bytes, limit: int = FILE_BYTES) -> None:
    """Writes to the end of a file, which is rotated when it is full and its line complete.

    It is opened each time, so a file may be moved or removed meanwhile.

    Raises:
        OSError: the disk is full, or the folder does not exist.
    """
    with _writing:
        size = path.stat().st_size if path.exists() else 0
        line_end = data.rfind(b"\n") + 1
        if size + len(data) < limit or not (line_end or size + len(data) >= limit + MAX_LINE_BYTES):
            _write(path, data)
            return
        line_end = line_end or len(data)
        _write(path, data[:line_end])
        rotate(path)
        if line_end < len(data):
            _write(path, data[line_end:])


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)


class Pump:
    """Copies the output of a pipe to a log file, in a thread, until the pipe ends or `close`.

    A full disk stops no process: lines are dropped meanwhile, and their number of bytes is written once there is space
    again.
    """

    def __init__(self, source: int, path: Path) -> None:
        """
        Args:
            source: the reading end of the pipe; it is closed at the end.
            path: the log file.
        """
        self._source = source
        self._path = path
        self._tail = b""
        self._dropped = 0
        self._is_drained = False
        self._is_closing = threading.Event()
        os.set_blocking(source, False)
        self._thread = threading.Thread(target=self._run, name=f"log {path.name}", daemon=True)
        self._thread.start()

    def tail(self) -> bytes:
        """The end of the output."""
        return self._tail

    def drain(self) -> None:
        """Waits for the rest after the process has ended; not for long, as a child of it may keep the pipe open."""
        if not self._is_drained:
            self._is_drained = True
            self._thread.join(_DRAIN_SECONDS)

    def close(self) -> None:
        """Writes the content of the pipe and ends."""
        self._is_closing.set()
        self._thread.join(_DRAIN_SECONDS)

    def _run(self) -> None:
        waiting = select.poll()
        waiting.register(self._source, select.POLLIN)
        try:
            while True:
                if not waiting.poll(200):
                    if self._is_closing.is_set():
                        return
                    continue
                try:
                    data = os.read(self._source, _CHUNK_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    return
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
                self._keep(data)
        finally:
            os.close(self._source)

    def _keep(self, data: bytes) -> None:
        try:
            if self._dropped:
                append(self._path, f"[{self._dropped} bytes could not be written]\n".encode())
                self._dropped = 0
            append(self._path, data)
        except OSError:
            self._dropped += len(data)
            time.sleep(0.1)
