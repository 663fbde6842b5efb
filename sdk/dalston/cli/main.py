"""The entry point of the command `dalston`, which imports the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dalston.cli.interrupts import INTERRUPTED, exiting_at_once


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code. An error is one line on stderr."""
    try:
        with exiting_at_once():
            from dalston.cli.command import run
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
