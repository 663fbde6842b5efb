"""Whether the process of the models hangs in a call.

A clock on the wall does not show it: a process of the lowest scheduling class may wait for the CPU for hours. A thread
that waits for the CPU is ready to run in the eyes of the kernel. A process hangs if all of its threads sleep, look
after look, and use no CPU time, although the worker owes it nothing, or if it computes without end.
"""

import os
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 10.0
_STILL_LOOKS: Final = 60
"""In a row: ten minutes in which the worker itself ran."""
_CPU_SECONDS: Final = 4 * 3600.0
"""Of one step of a call, such as a window of a minute: many times what the largest models need."""
_SLEEPING: Final = "S"
_PROC: Final = Path("/proc")


class Hanging:
    """Looks at a process every `LOOK_SECONDS` during a step of a call."""

    def __init__(self, pid: int, proc: Path = _PROC) -> None:
        self._folder = proc / str(pid)
        self._first: float | None = None
        self._last: float | None = None
        self._still = 0

    def look(self) -> str | None:
        """How the process hangs, as a phrase; None if it does not, or has ended."""
        try:
            threads = [_thread(each / "stat") for each in (self._folder / "task").iterdir()]
            used = _thread(self._folder / "stat")[1]
        except (OSError, ValueError, IndexError):
            return None
        if self._first is None:
            self._first = used
        is_still = used == self._last and all(state == _SLEEPING for state, _ in threads)
        self._still = self._still + 1 if is_still else 0
        self._last = used
        if self._still >= _STILL_LOOKS:
            return f"slept for {_STILL_LOOKS * LOOK_SECONDS / 60:.0f} minutes"
        if used - self._first > _CPU_SECONDS:
            return f"used {_CPU_SECONDS / 3600:.0f} hours of CPU time"
        return None


def _thread(stat: Path) -> tuple[str, float]:
    """The state and the seconds of CPU time in a file of proc(5). The name before them may have any characters."""
    fields = stat.read_text().rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
