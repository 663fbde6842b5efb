"""A display that is rendered again and again while a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dalston.cli import output


def live_display(render: Callable[[], Any]) -> tuple[AbstractContextManager[Any], Any]:
    """The display to enter, on stdout or stderr, whichever is a terminal, and its console; otherwise neither.

    Args:
        render: returns what to show; called here at once, and then on another thread.
    """
    screen = next((each for each in (sys.stdout, sys.stderr) if output.is_terminal(each)), None)
    if screen is None:
        return nullcontext(), None
    from rich.live import Live

    console = output.console(screen)
    display = Live(
        console=console,
        get_renderable=render,
        refresh_per_second=8,
        transient=True,
        redirect_stdout=output.is_terminal(sys.stdout),
        redirect_stderr=output.is_terminal(sys.stderr),
    )
    return display, console
