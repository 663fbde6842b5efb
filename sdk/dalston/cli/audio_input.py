"""What `dalston transcribe` is given: files, pipes and standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dalston.cli import output
from dalston.cli.exits import usage

if TYPE_CHECKING:
    from dalston.options import AudioSource

STDIN = "-"


def check(files: Sequence[str]) -> None:
    """Refuses what cannot be audio, before anything is sent.

    Raises:
        CommandError: there is no such file, or it is a folder, or standard input is nothing to read from.
    """
    if files.count(STDIN) > 1:
        raise usage("standard input can be read once")
    for file in files:
        if file == STDIN:
            if sys.stdin is None:
                raise usage("standard input is closed: pipe audio into it, or name a file")
            if output.is_terminal(sys.stdin):
                raise usage("standard input is a terminal: pipe audio into it")
        elif Path(file).is_dir():
            raise usage(f"{file} is a folder, not a file of audio")
        elif not Path(file).exists():
            raise usage(f"there is no file {file}")


def open_input(file: str) -> AudioSource:
    """The source of audio that a name on the command line stands for."""
    if file != STDIN:
        return file if Path(file).is_file() else _open_pipe(file)
    if stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        return sys.stdin.buffer
    return _Pipe(sys.stdin.buffer)  # type: ignore[return-value]  # a BinaryIO as far as it is read


class _Pipe:
    """Gives what is there, instead of waiting for as much as is asked for."""

    _HEADER_BYTES = 64
    """What is read in such small steps is a header, of which every byte is needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size <= self._HEADER_BYTES:
            return self._file.read(size)
        return self._file.read1(size)  # type: ignore[attr-defined,no-any-return]  # it is a BufferedReader


def _open_pipe(file: str) -> AudioSource:
    """A named pipe, such as the shell's <(command)."""
    descriptor = os.open(file, os.O_RDONLY)
    # Never closed: a thread may be waiting in it, which closing would wait for.
    return _Pipe(open(descriptor, "rb", closefd=False))  # type: ignore[return-value]
