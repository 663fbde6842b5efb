"""Where a command's words go: answers to stdout, everything about them to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dalston.cli import documents, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

LONG_BYTES = 1024 * 1024
"""From here on a transfer has a progress bar."""
_LEAST_WIDTH = 20
"""A column that is wider is cut rather than left out."""


def prepare() -> None:
    """Makes the standard streams take whatever there is to say.

    What goes to a file or another program is UTF-8, whatever the locale says: in the encoding of some of them no text
    can be written but English. A terminal is written to in its own, and a character that it lacks is written as a
    number. A stream that is closed takes everything and keeps nothing.
    """
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if is_terminal(stream) else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def forget(stream: TextIO) -> None:
    """Nobody reads it any more: what is still written to it goes nowhere, also at the exit of the interpreter."""
    with _nowhere() as nowhere, suppress(OSError, ValueError):  # It may be no file at all.
        os.dup2(nowhere.fileno(), stream.fileno())


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it."""
    return stream is not None and stream.isatty()


def say(text: object = "") -> None:
    """Writes a line to stdout, at once."""
    sys.stdout.write(f"{safe_text.line(text)}\n")
    sys.stdout.flush()


def say_text(text: str) -> None:
    """Writes a document to stdout: as it is to a program, made safe to a terminal."""
    sys.stdout.write(safe_text.text(text) if is_terminal(sys.stdout) else text)
    sys.stdout.flush()


def note(text: object) -> None:
    """Writes a line to stderr. That nobody reads it is no reason to do anything else."""
    try:
        sys.stderr.write(f"{safe_text.line(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        forget(sys.stderr)


def say_json(value: Any) -> None:
    """Writes one JSON document."""
    sys.stdout.write(documents.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


def say_json_line(value: Any) -> None:
    """Writes one of several JSON documents, each on a line."""
    sys.stdout.write(documents.dumps(value) + "\n")
    sys.stdout.flush()


def console(stream: TextIO) -> Console:
    """Rich, for a stream; it takes nothing for markup and breaks no lines. NO_COLOR is heeded."""
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=is_terminal(stream),
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for a person; for a program a line for each row, with tabs between, and no heading.

    Args:
        columns: the most important first: what a terminal is too narrow for is left out from the end.
    """
    if not is_terminal(sys.stdout):
        for row in rows:
            sys.stdout.write("\t".join(map(safe_text.line, row)) + "\n")
        return
    screen = console(sys.stdout)
    if shown := list(rows):
        screen.print(table(columns, shown, screen.width))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Any:
    """A table of Rich, of text that is safe, with the columns that fit."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[safe_text.line(cell) for cell in row] for row in rows]
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    left = width
    for number, name in enumerate(columns):
        needed = max(map(cell_len, (name, *(row[number] for row in cells))))
        if number > 0 and left < min(needed, _LEAST_WIDTH):
            break
        fitting = max(1, min(needed, left))  # The last gives way: an id that is cut is none.
        made.add_column(name, no_wrap=True, overflow="ellipsis", min_width=fitting, max_width=fitting)
        left -= needed + 2
    shown = len(made.columns)
    for row in cells:
        made.add_row(*map(Text, row[:shown]))
    return made


def say_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    for name, value in pairs:
        say(f"{name + ':':<24} {value}")


@contextmanager
def transfer(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where a person looks at it and the transfer is long.

    Gives what to call with the bytes that are here and the bytes there are in all.
    """
    if not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    columns = (  # Together less than 80 wide.
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=20)),
        BarColumn(bar_width=20),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(safe_text.line(what), visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=total >= LONG_BYTES)
