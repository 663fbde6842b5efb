"""The start and the end of the operating system's process that runs the models."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal, Protocol

from server.inference.config import InferenceSettings
from telemetry.logs import LogFormat
from worker.model.child import Job

_ROOT: Final = Path(__file__).resolve().parents[2]
_OURS: Final = "DALSTON_"
_KEPT: Final = frozenset(_OURS + name.upper() for name in InferenceSettings.model_fields)
"""Of our own variables, those that the process of the models reads."""
_STORAGE: Final = ("AWS_", "BOTO_", "PG")
"""How the names of variables begin that the clients of S3 and Postgres read by themselves."""


class Child(Protocol):
    """A process that runs the models."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def connection(self) -> socket.socket:
        """The worker's end of the conversation, which the caller closes."""
        ...

    def kill(self) -> None:
        """Ends it; nothing if it has ended."""
        ...

    async def wait(self) -> str:
        """Waits for its end. Returns how it ended, for example `signal SIGKILL` or `exit code 1`."""
        ...


Start = Callable[[], Child]
"""Starts a process, from the loop."""


class ChildProcess:
    """A process, in a session of its own. `wait` has to be called."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self.connection = connection
        # asyncio's own processes may lose the exit code to a signal that is sent after the exit.
        self._pidfd = os.pidfd_open(process.pid)
        self._exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited.set)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """Ends it; nothing if it has ended."""
        # Until it is waited for, its number belongs to no other process.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def wait(self) -> str:
        """Waits for its end. Returns how it ended."""
        await self._exited.wait()
        if self._process.returncode is None:
            self._process.wait()
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        code = self._process.returncode
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"


def starting(program: str, priority: Literal["idle", "normal"], log_level: str, log_format: LogFormat) -> Start:
    """What starts a process that runs the models.

    Args:
        program: `module:function`, which loads the models and returns the recognizer.
        priority: as in the settings of the worker.
        log_level: of the process.
        log_format: the same; it writes to standard error of the worker.
    """

    def start() -> Child:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            with theirs:
                job = Job(os.getpid(), theirs.fileno(), program, priority, log_level, log_format)
                # From the thread of the loop, which lives as long as the worker: the process ends with this thread.
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "worker.model.child", json.dumps(asdict(job))],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=environment(os.environ),
                    start_new_session=True,
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            child = ChildProcess(process, ours)
            stack.pop_all()
        return child

    return start


def environment(of_worker: Mapping[str, str]) -> dict[str, str]:
    """The variables of the process: those of the worker without its addresses and credentials of Postgres and S3."""
    kept = {
        name: value
        for name, value in of_worker.items()
        if (name.upper() in _KEPT if name.upper().startswith(_OURS) else not name.upper().startswith(_STORAGE))
    }
    path = [str(_ROOT), *filter(None, [of_worker.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path)}
