"""Keeps the parts of a stack running: a part that dies is restarted, and one that keeps dying ends the stack."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Self

from stack.errors import Interrupted, NotReady, ProcessDied, StackError
from stack.process import Pause, Process, Stopping
from stack.progress import Progress

MAX_FAILURES = 5
"""A part that fails so often, without running for `STABLE_SECONDS` in between, is not restarted again."""
STABLE_SECONDS = 60.0
_FIRST_DELAY_SECONDS = 0.25
_MAX_DELAY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Service:
    """How a part is started and restarted, always on the same addresses."""

    name: str
    launch: Callable[[], AbstractContextManager[Process]]
    """Runs the part while the block runs; it need not be ready when the block begins."""
    is_ready: Callable[[], bool]
    """The readiness check, called several times a second while the part starts; it must return within two seconds."""
    ready_seconds: float
    """How long the part may take to become ready."""
    needs: Sequence[str] = ()
    """Parts that must be ready before it is restarted."""


class _State(Enum):
    STARTING = auto()
    READY = auto()
    STOPPING = auto()
    """Not ready in time and being stopped; it is started again after its exit."""
    WAITING = auto()
    """Not running; started after the back-off, once the parts that it needs are ready."""


class _Part:
    """One service and the process that runs it now."""

    def __init__(self, service: Service, progress: Progress) -> None:
        self.service = service
        self.state = _State.WAITING
        self.process: Process | None = None
        self._progress = progress
        self._stack = ExitStack()
        self._failures = 0
        self._stopping: Stopping | None = None
        self._failure: StackError | None = None
        self._not_before = self._since = time.monotonic()

    def launch(self) -> Process:
        self.process = self._stack.enter_context(self.service.launch())
        self._enter(_State.STARTING)
        return self.process

    def mark_ready(self) -> None:
        self._enter(_State.READY)

    def close(self) -> None:
        self._stack.close()

    def step(self, missing: set[str]) -> None:
        """Takes the next step, if one is due; `missing` are the parts that are not ready.

        Raises:
            StackError: the part has failed too often, with the last failure.
        """
        seconds = time.monotonic() - self._since
        try:
            match self.state:
                case _State.WAITING:
                    if time.monotonic() >= self._not_before and missing.isdisjoint(self.service.needs):
                        self.launch()
                case _State.STARTING:
                    self._running().check()
                    if self.service.is_ready():
                        self.mark_ready()
                        self._progress.note(f"{self.service.name} is back", is_good=True, seconds=seconds)
                    elif seconds > self.service.ready_seconds:
                        raise NotReady(f"{self.service.name} was not ready within {self.service.ready_seconds:.0f} s")
                case _State.STOPPING:
                    self._await_end()
                case _State.READY:
                    if self._failures and seconds > STABLE_SECONDS:
                        self._failures = 0
                    self._running().check()
        except Interrupted:
            raise
        except StackError as error:
            self._fail(error)

    def _fail(self, error: StackError) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            # The caller that started the stack stops all of it.
            raise GivenUp(self.service.name, self._failures, error) from error
        self._failure = error
        if self.process is None or self.process.exit_code() is not None:
            self._start_later(error)
            return
        # A graceful shutdown may take a minute, during which the other parts are supervised.
        self._stopping = Stopping(self.process)
        self._enter(_State.STOPPING)
        self._await_end()

    def _await_end(self) -> None:
        if self._stopping is None or self._failure is None:
            raise RuntimeError(f"{self.service.name} is not being stopped")
        if self._stopping.has_ended():
            self._start_later(self._failure)

    def _start_later(self, error: StackError) -> None:
        self._stack.close()
        self._stopping = self._failure = None
        delay = min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (self._failures - 1))
        self._not_before = time.monotonic() + delay
        self._enter(_State.WAITING)
        reason = error.reason if isinstance(error, ProcessDied) else str(error)
        self._progress.note(f"{reason}; starting it again in {delay:.1f} s{_where(error)}", is_good=False)

    def _running(self) -> Process:
        if self.process is None:
            raise RuntimeError(f"{self.service.name} was never started")
        return self.process

    def _enter(self, state: _State) -> None:
        self.state = state
        self._since = time.monotonic()


def _where(error: StackError) -> str:
    return f" (its log: {error.log})" if isinstance(error, ProcessDied) else ""


class GivenUp(StackError):
    """A part has failed too often."""

    def __init__(self, name: str, times: int, error: StackError) -> None:
        super().__init__(f"{name} failed {times} times in a row, and is not started again. The last time: {error}")


class Keeper:
    """Starts parts in order, keeps them running as long as `check` is called, and stops them in reverse order."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._parts: list[_Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops all parts, the last one first."""
        with ExitStack() as stopping:
            for part in self._parts:
                stopping.callback(part.close)

    @property
    def processes(self) -> tuple[Process, ...]:
        """In the order in which the parts were started; for a part that is not running, its last process."""
        return tuple(part.process for part in self._parts if part.process is not None)

    @property
    def all_ready(self) -> bool:
        """Whether every part was ready at its last check."""
        return all(part.state is _State.READY for part in self._parts)

    def launch(self, service: Service) -> Process:
        """Starts a part for the first time.

        Raises:
            StackError: it cannot be started.
        """
        part = _Part(service, self._progress)
        self._parts.append(part)
        return part.launch()

    def wait(self, service: Service, pause: Pause) -> Process:
        """Waits until a part that was launched is ready.

        Raises:
            StackError: it does not become ready, or an earlier part has died: none is restarted until all have started.
        """
        part = next(each for each in self._parts if each.service is service)

        def watch_others(seconds: float) -> None:
            self.check_starting()
            pause(seconds)

        process = part.process
        if process is None:
            raise RuntimeError(f"{service.name} was not launched")
        process.wait_until(service.is_ready, service.ready_seconds, watch_others)
        part.mark_ready()
        return process

    def check_starting(self) -> None:
        """Raises ProcessDied if a part has ended."""
        for process in self.processes:
            process.check()

    def check(self) -> None:
        """Restarts parts that have ended; must be called several times a second.

        Raises:
            GivenUp: a part keeps failing.
        """
        missing = {part.service.name for part in self._parts if part.state is not _State.READY}
        for part in self._parts:
            part.step(missing)
