"""`python -m stack up` and `python -m stack demo`."""

import sys

from stack.interruption import Interruption


def main() -> int:
    # What the commands need takes a second to import: Ctrl-C is to be in good hands before.
    with Interruption() as interruption:
        from stack.cli import run

        return run(sys.argv[1:], interruption)


if __name__ == "__main__":
    sys.exit(main())
