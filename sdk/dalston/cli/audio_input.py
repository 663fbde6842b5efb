"""The input of `dalston transcribe`: files, pipes and standard input."""

from __future__ import annotations

import os
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
    """Rejects invalid input before anything is sent.

    Raises:
        CommandError: a file does not exist or is a folder, or standard input is closed or a terminal.
    """
    if files.count(STDIN) > 1:
        raise usage("standard input can be given only once")
    for file in files:
        if file == STDIN:
            if sys.stdin is None:
                raise usage("standard input is closed: pipe audio into it or name a file")
            if output.is_terminal(sys.stdin):
                raise usage("standard input is a terminal: pipe audio into it")
        elif Path(file).is_dir():
            raise usage(f"{file} is a folder, not an audio file")
        elif not Path(file).exists():
            raise usage(f"the file {file} does not exist")


def is_regular(file: str) -> bool:
    """Whether it is a regular file, which can be uploaded; not standard input and not a pipe."""
    return file != STDIN and Path(file).is_file()


def open_input(file: str) -> AudioSource:
    """The audio source for a name on the command line."""
    if file == STDIN:
        return _unbuffered(sys.stdin.fileno())
    # A named pipe, such as the shell's <(command), is opened here: the interpreter could not exit while a thread waits
    # for the other end.
    return file if is_regular(file) else _unbuffered(os.open(file, os.O_RDONLY))


def _unbuffered(descriptor: int) -> BinaryIO:
    """A file whose reads return the available bytes instead of waiting for the requested number.

    It has no lock, which a blocked thread would hold at interpreter exit, and it is never closed, which would wait for
    that thread.
    """
    return open(descriptor, "rb", buffering=0, closefd=False)
