"""The terminal view of a live transcription: finals, the current partial and the progress."""

from __future__ import annotations

from typing import Any, Self

from dalston.cli import safe_text
from dalston.cli.measures import clock
from dalston.cli.screen import live_display

_LONG_SECONDS = 10.0
"""Longer files show a progress bar."""


class LiveView:
    """Shown on stdout or stderr, whichever is a terminal; otherwise nowhere.

    Args:
        total: length of the audio in seconds; None if it is unknown.
    """

    def __init__(self, total: float | None) -> None:
        self._total = total if total is not None and total >= _LONG_SECONDS else None
        self._partial = ""
        self._processed = 0.0
        self.is_ending = False
        """Whether the user has requested the end, which is pending. May be set in a signal handler."""
        self._bar: Any = None
        self._console: Any = None
        self._live, self._console = live_display(self._render)
        if self._console is not None and self._total is not None:
            from rich.progress_bar import ProgressBar

            self._bar = ProgressBar(total=self._total, width=30)

    def partial(self, text: str) -> None:
        """Shows a partial."""
        self._partial = safe_text.line(text)

    def processed(self, seconds: float) -> None:
        """Advances the progress bar."""
        self._processed = seconds

    def _render(self) -> Any:
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        rows: list[Any] = []
        if self._partial:
            rows.append(Text(self._partial[-(self._console.width - 1) :], style="dim", no_wrap=True, overflow="crop"))
        if self.is_ending:
            rows.append(Text("finishing the transcript; press Ctrl-C again to exit immediately", style="yellow"))
        elif self._bar is not None and self._total is not None:
            self._bar.update(min(self._processed, self._total))
            rows.append(Columns([self._bar, Text(f"{clock(self._processed)} of {clock(self._total)}")]))
        return Group(*rows)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._partial = ""
        self._live.__exit__(*error)
