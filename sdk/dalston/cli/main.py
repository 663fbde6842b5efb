"""The entry of the command `dalston`, which loads the command itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dalston.cli.interrupts import INTERRUPTED, leaving_at_once


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit code. What fails is told in one line on stderr."""
    try:
        with leaving_at_once():
            from dalston.cli.command import run
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
