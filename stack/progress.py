"""What the stack tells the person who started it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape

Tell = Callable[[str], None]
"""Takes a few words about how a step goes on; may be called with the same words again."""


class Progress(Protocol):
    def step(self, name: str, doing: str = "starting") -> AbstractContextManager[Tell]:
        """Around each step."""

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        """What happened by itself."""


class Terminal:
    """One line a step, with the time it took; at a terminal a spinner stands in for the line until then."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, name: str, doing: str = "starting") -> Iterator[Tell]:
        began = time.monotonic()
        steps = self._spin(name, doing) if self._console.is_terminal else self._print(name, doing)
        with steps as tell:
            yield tell
        seconds = time.monotonic() - began
        self._console.print(f"  [green]✓[/green] {name} [dim]({seconds:.1f} s)[/dim]", highlight=False)

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        mark = "[green]✓[/green]" if is_good else "[yellow]![/yellow]"
        took = "" if seconds is None else f" [dim]({seconds:.1f} s)[/dim]"
        self._console.print(f"  {mark} {escape(words)}{took}", highlight=False, soft_wrap=True)

    @contextmanager
    def _spin(self, name: str, doing: str) -> Iterator[Tell]:
        with self._console.status(f"{name}: {doing}") as status:
            yield lambda words: status.update(escape(f"{name}: {words}"))

    @contextmanager
    def _print(self, name: str, doing: str) -> Iterator[Tell]:
        said = doing

        def tell(words: str) -> None:
            nonlocal said
            if words != said:
                said = words
                self._console.print(f"  {name}: {words}", highlight=False, markup=False, soft_wrap=True)

        self._console.print(f"  {name}: {doing}", highlight=False, markup=False, soft_wrap=True)
        yield tell


class Silent:
    """For tests."""

    @contextmanager
    def step(self, name: str, doing: str = "starting") -> Iterator[Tell]:
        yield self._ignore

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        pass

    @staticmethod
    def _ignore(words: str) -> None:
        pass
