"""The progress that the stack shows at the terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape

Report = Callable[[str], None]
"""Shows the progress of a step in a few words; may be called with the same words again."""


class Progress(Protocol):
    def step(self, name: str, doing: str = "starting") -> AbstractContextManager[Report]:
        """Shows a step while the block runs."""

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        """Shows an event outside of the steps."""


class Terminal:
    """One line per step, with its duration; at a terminal a spinner is shown until then."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, name: str, doing: str = "starting") -> Iterator[Report]:
        began = time.monotonic()
        steps = self._spin(name, doing) if self._console.is_terminal else self._print(name, doing)
        with steps as report:
            yield report
        seconds = time.monotonic() - began
        self._console.print(f"  [green]✓[/green] {name} [dim]({seconds:.1f} s)[/dim]", highlight=False)

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        mark = "[green]✓[/green]" if is_good else "[yellow]![/yellow]"
        took = "" if seconds is None else f" [dim]({seconds:.1f} s)[/dim]"
        self._console.print(f"  {mark} {escape(words)}{took}", highlight=False, soft_wrap=True)

    @contextmanager
    def _spin(self, name: str, doing: str) -> Iterator[Report]:
        with self._console.status(f"{name}: {doing}") as status:
            yield lambda words: status.update(escape(f"{name}: {words}"))

    @contextmanager
    def _print(self, name: str, doing: str) -> Iterator[Report]:
        shown = doing

        def report(words: str) -> None:
            nonlocal shown
            if words != shown:
                shown = words
                self._console.print(f"  {name}: {words}", highlight=False, markup=False, soft_wrap=True)

        self._console.print(f"  {name}: {doing}", highlight=False, markup=False, soft_wrap=True)
        yield report


class Silent:
    """For tests."""

    @contextmanager
    def step(self, name: str, doing: str = "starting") -> Iterator[Report]:
        yield self._ignore

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        pass

    @staticmethod
    def _ignore(words: str) -> None:
        pass
