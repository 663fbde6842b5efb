"""`python -m stack up` and `python -m stack demo`."""

import sys

from stack.interruption import Interruption


def main() -> int:
    # The imports of the commands take a second: the handlers of Ctrl-C are installed before.
    with Interruption() as interruption:
        from stack.cli import run

        return run(sys.argv[1:], interruption)


if __name__ == "__main__":
    sys.exit(main())
