"""Errors while the local stack starts or runs. Each message is a sentence for the person at the terminal.

StackError
 ├── CannotStart     the machine or the configuration does not allow it
 ├── ProcessDied     a part ended by itself
 ├── GivenUp         a part keeps failing (stack/keeper.py)
 ├── NotReady        a part did not become ready in time
 └── Interrupted     a signal arrived during the start
"""

from pathlib import Path


class StackError(Exception):
    """The stack cannot start or continue, with the reason."""


class CannotStart(StackError):
    """Nothing was started, or what was started has been stopped again."""


class ProcessDied(StackError):
    """A part ended without having been stopped."""

    def __init__(self, name: str, exit_code: int, log: Path, last_lines: list[str]) -> None:
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        quoted = "".join(f"\n    {line}" for line in last_lines)
        output = f"; the end of its log:{quoted}" if quoted else ""
        super().__init__(f"{name} {how}{output}\n  its log: {log}")
        self.reason = f"{name} {how}"
        self.name = name
        self.exit_code = exit_code
        self.log = log
        self.last_lines = last_lines


class NotReady(StackError):
    """A part runs but does not answer."""


class Interrupted(StackError):
    """Ctrl-C was pressed, or SIGTERM was sent."""
