"""One process of the stack: its output is in a log file, it is watched and stopped, and it ends with its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from stack.errors import CannotStart, NotReady, ProcessDied
from stack.identity import Identity
from stack.logs import Pump

Pause = Callable[[float], None]
"""Sleeps for some seconds; may raise to end the waiting, for example `Interrupted`."""

Stop = Sequence[tuple[signal.Signals, float]]
"""Signals to send in turn, each with the seconds to wait for the exit."""

_TETHER = Path(__file__).with_name("tether.py")
_POLL_SECONDS = 0.02
_KILL_SECONDS = 10.0
PRIVATE = 0o077
"""The umask with which only the user of a part can read its files."""
PUBLIC = 0o022
"""The umask with which everybody may read the files, and only their user may write them."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    log_start: int
    """Size of the log before this process wrote to it."""
    pump: Pump
    stop_signals: Stop = ()
    """The signals that stop the process before it is killed."""

    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it. Its last output is in the log by then."""
        code = self.popen.poll()
        if code is not None:
            self.pump.drain()
        return code

    def last_lines(self, count: int = 12) -> list[str]:
        """The last lines that this process wrote to its log."""
        return self.pump.tail().decode(errors="replace").splitlines()[-count:]

    def check(self) -> None:
        """Raises ProcessDied if it has ended."""
        code = self.exit_code()
        if code is not None:
            raise ProcessDied(self.name, code, self.log, self.last_lines())

    def wait_until(self, ready: Callable[[], bool], timeout: float, pause: Pause = time.sleep) -> None:
        """Polls `ready` until it is true.

        Raises:
            ProcessDied: the process ended first.
            NotReady: `timeout` seconds passed.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                quoted = "".join(f"\n    {line}" for line in self.last_lines())
                raise NotReady(
                    f"{self.name} was not ready within {timeout:.0f} s; the end of its log:{quoted}\n"
                    f"  its log: {self.log}"
                )
            pause(_POLL_SECONDS)

    def finish(self, pause: Pause = time.sleep) -> int:
        """Waits for a process that ends by itself and returns its exit code."""
        while (code := self.exit_code()) is None:
            pause(_POLL_SECONDS)
        return code

    def stop(self) -> None:
        """Sends `stop_signals` in turn, waits the given seconds after each, then kills the process."""
        for number, seconds in (*self.stop_signals, (signal.SIGKILL, _KILL_SECONDS)):
            if self.exit_code() is not None:
                return
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                continue


class Stopping:
    """Stops a process as `Process.stop` does, without waiting for it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._signals = chain(process.stop_signals, repeat((signal.SIGKILL, _KILL_SECONDS)))
        self._next_at = time.monotonic()

    def has_ended(self) -> bool:
        """Whether the process has ended; sends the next signal if it is time to. To be called some times a second.

        A process that not even a kill ends, for it waits for a disk that hangs, is killed again every ten seconds.
        """
        if self._process.exit_code() is not None:
            return True
        if time.monotonic() >= self._next_at:
            number, seconds = next(self._signals)
            self._process.popen.send_signal(number)
            self._next_at = time.monotonic() + seconds
        return False


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    identity: Identity | None = None,
    stop: Stop = ((signal.SIGTERM, 10.0),),
    death_signal: signal.Signals = signal.SIGKILL,
    umask: int = PRIVATE,
) -> Iterator[Process]:
    """Runs `command` while the block runs.

    It has a session of its own, so that Ctrl-C at the terminal reaches only the caller, which decides the order of the
    shutdown. If the caller dies without stopping it (`kill -9`), the kernel sends it `death_signal`.

    Raises:
        CannotStart: the program or the log file cannot be opened.
    """
    # The kernel watches the thread that forked, not the process.
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("processes of the stack are started from the main thread, or they end with the other thread")
    who = ("-1", "-1", "-")
    if identity is not None:
        who = (str(identity.uid), str(identity.gid), ",".join(identity.keep) or "-")
    tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(death_signal)), f"{umask:o}", *who]
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        start = os.lseek(handle, 0, os.SEEK_END)
        os.close(handle)
        source, sink = os.pipe()
        try:
            popen = subprocess.Popen(
                [*tether, *command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError:
            os.close(source)
            raise
        finally:
            os.close(sink)
    except OSError as error:
        raise CannotStart(f"cannot start {name}: {error.strerror}: {error.filename}") from error
    process = Process(name, popen, log, start, Pump(source, log), tuple(stop))
    try:
        yield process
    finally:
        process.stop()
        process.pump.drain()
