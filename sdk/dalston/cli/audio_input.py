"""What `dalston transcribe` is given: files, pipes and standard input."""

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
    if file == STDIN:
        return _unbuffered(sys.stdin.fileno())
    # A named pipe, such as the shell's <(command), is opened here: the interpreter could not leave while a thread of it
    # waits for the other end.
    return file if Path(file).is_file() else _unbuffered(os.open(file, os.O_RDONLY))


def _unbuffered(descriptor: int) -> BinaryIO:
    """Gives what is there, instead of waiting for as much as is asked for.

    It has no lock, which a thread that waits in it would hold when the interpreter leaves, and is never closed, which
    would wait for that thread.
    """
    return open(descriptor, "rb", buffering=0, closefd=False)
