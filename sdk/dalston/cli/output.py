"""Output of the commands: results on stdout, messages on stderr."""

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
"""Larger transfers show a progress bar."""
_LEAST_WIDTH = 20
"""A column that needs at least this width is truncated rather than omitted."""


def prepare() -> None:
    """Prepares the standard streams for text in any language.

    Files and pipes receive UTF-8 regardless of the locale, whose encoding may not support the text. A terminal receives
    its own encoding, and unsupported characters are escaped. Output to a closed stream is discarded.
    """
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if is_terminal(stream) else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Discards all further output to a stream whose reader has closed it, including that at interpreter exit."""
    with _nowhere() as nowhere, suppress(OSError, ValueError):  # The stream may not be a file.
        os.dup2(nowhere.fileno(), stream.fileno())


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal."""
    return stream is not None and stream.isatty()


def print_line(text: object = "") -> None:
    """Writes a line to stdout and flushes it."""
    sys.stdout.write(f"{safe_text.line(text)}\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Writes a document to stdout: unchanged to a pipe, without control characters to a terminal."""
    sys.stdout.write(safe_text.text(text) if is_terminal(sys.stdout) else text)
    sys.stdout.flush()


def note(text: object) -> None:
    """Writes a line to stderr. A closed stderr is not an error."""
    try:
        sys.stderr.write(f"{safe_text.line(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        discard(sys.stderr)


def print_json(value: Any) -> None:
    """Writes one JSON document to stdout."""
    sys.stdout.write(documents.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """Writes one of several JSON documents to stdout, each on its own line."""
    sys.stdout.write(documents.dumps(value) + "\n")
    sys.stdout.flush()


def console(stream: TextIO) -> Console:
    """A Rich console for a stream, without markup and line wrapping. It respects NO_COLOR."""
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=is_terminal(stream),
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a table to a terminal, or tab-separated lines without a heading to a pipe.

    Args:
        columns: the most important first; a narrow terminal omits columns from the end.
    """
    if not is_terminal(sys.stdout):
        for row in rows:
            sys.stdout.write("\t".join(map(safe_text.line, row)) + "\n")
        return
    screen = console(sys.stdout)
    if shown := list(rows):
        screen.print(table(columns, shown, screen.width))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Any:
    """A Rich table of the columns that fit, without control characters."""
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
        fitting = max(1, min(needed, left))  # The last column is truncated; a truncated id would be useless.
        made.add_column(name, no_wrap=True, overflow="ellipsis", min_width=fitting, max_width=fitting)
        left -= needed + 2
    shown = len(made.columns)
    for row in cells:
        made.add_row(*map(Text, row[:shown]))
    return made


def print_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Writes names and values, one pair per line."""
    for name, value in pairs:
        print_line(f"{name + ':':<24} {value}")


@contextmanager
def transfer(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar if stderr is a terminal and the transfer is long.

    Yields a function to call with the bytes transferred and the total number of bytes.
    """
    if not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    columns = (  # Narrower than 80 characters in total.
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=20)),
        BarColumn(bar_width=20),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(safe_text.line(label), visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=total >= LONG_BYTES)
