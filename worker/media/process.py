"""One child process that decodes, from its start to its end. The parent owns it by its process group."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from worker.media.child import Job

_ROOT: Final = Path(__file__).resolve().parents[2]
_ENVIRONMENT: Final = {
    "PYTHONPATH": str(_ROOT),
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_REPORT_BYTES: Final = 64 * 1024
_STDERR_BYTES: Final = 4096
_REAP_SECONDS: Final = 10.0

_reaping: set[asyncio.Task[None]] = set()
"""Ends of killed children that nobody waits for any more, because the waiting task was cancelled again."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    code: int
    """Negative: the number of a signal."""
    report: dict[str, Any] | None
    """None if it did not report, or reported nonsense."""
    stderr: str


class Child:
    """A running child. Must be left by `end`, which kills what still runs."""

    def __init__(self, job: Job, source: int, destination: int) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self._report, report = _pipe(ours, theirs)
            self._stderr, stderr = _pipe(ours, theirs)
            job = replace(job, report=report)
            self._process = subprocess.Popen(
                # Without the working directory and the user's folder in its path.
                [sys.executable, "-P", "-s", "-m", "worker.media.child", json.dumps(asdict(job))],
                stdin=source,
                stdout=destination,
                stderr=stderr,
                pass_fds=(report,),
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )
            ours.callback(self._process.wait)
            ours.callback(self._process.kill)
            self._pidfd = os.pidfd_open(self._process.pid)
            ours.pop_all()
        self._exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited.set)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group."""
        return self._process.pid

    async def wait(self, seconds: float) -> bool:
        """Waits for its exit, but not longer than that. Returns whether it has exited."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return self._exited.is_set()

    def allow_cpu(self, seconds: int) -> None:
        """Raises its limit of CPU time."""
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_CPU)
            if hard != resource.RLIM_INFINITY:  # It has limited itself.
                resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (min(seconds, hard), hard))

    def result(self) -> Exit:
        """How it ended. It must have exited."""
        code = self._process.wait()
        return Exit(
            code,
            _parsed(_read(self._report, _REPORT_BYTES)),
            _read(self._stderr, _STDERR_BYTES).decode(errors="replace"),
        )

    async def end(self) -> None:
        """Kills its process group, waits until the child is gone, and closes everything. Safe to cancel."""
        # Until it is waited for, its number belongs to no other process.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        task = asyncio.get_running_loop().create_task(self._reap(), name="end of a media decoder")
        _reaping.add(task)
        task.add_done_callback(_reaping.discard)
        await asyncio.shield(task)

    async def _reap(self) -> None:
        try:
            if await self.wait(_REAP_SECONDS):
                self._process.wait()
        finally:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            for end in (self._pidfd, self._report, self._stderr):
                os.close(end)


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends the stacks close. A child that writes without end does not wait for a reader."""
    read, write = os.pipe()
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


def _read(end: int, size: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(end, size)
    return b""


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None
