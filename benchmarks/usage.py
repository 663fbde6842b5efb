"""CPU time and memory of processes with all their children."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

MIB = 1 << 20


@dataclass(frozen=True)
class Usage:
    """The resources that one process and its children have used."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    """Proportional: memory that several processes share counts once."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_seconds + other.cpu_seconds, self.memory_bytes + other.memory_bytes)


def usage(pid: int) -> Usage:
    root = psutil.Process(pid)
    found = [root, *root.children(recursive=True)]
    return Usage(sum(map(_cpu_seconds, found)), sum(map(_memory_bytes, found)))


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # The parent has the times of children that have ended.
    return float(times.user + times.system + times.children_user + times.children_system)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


class Meter:
    """Measures the resources of the parts of a service from construction until `stop`."""

    def __init__(self, parts: Mapping[str, Sequence[int]]) -> None:
        self._parts = parts
        """Process ids by part."""
        self._begun = self._usage()
        self._ended = self._begun

    def stop(self) -> None:
        self._ended = self._usage()

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """By part."""
        return {part: now.cpu_seconds - self._begun[part].cpu_seconds for part, now in self._ended.items()}

    @property
    def memory_mib(self) -> dict[str, float]:
        """At the end, by part."""
        return {part: now.memory_bytes / MIB for part, now in self._ended.items()}

    def _usage(self) -> dict[str, Usage]:
        return {part: sum((usage(pid) for pid in pids), Usage()) for part, pids in self._parts.items()}


def by_part(figures: Mapping[str, float], digits: int) -> str:
    """The sum, and the parts if there are several."""
    each = [f"{figure:.{digits}f}" for figure in figures.values()]
    total = f"{sum(figures.values()):.{digits}f}"
    return total if len(each) == 1 else f"{total} ({' + '.join(each)})"
