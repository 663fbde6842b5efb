import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from stack.ports import free_port
from tests.integration.stack import substitute


@dataclass
class Command:
    """`python -m stack up` with substitutes for server and bridge, in a process of its own."""

    home: Path
    port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *server_words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            # A background job of a shell ignores SIGINT, and its children inherit that. `preexec_fn` would fork a
            # process with threads of gRPC, whose copy may abort.
            ["env", "--default-signal=INT", sys.executable, substitute.__file__, "up", *server_words],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("DALSTON_")},
                "DALSTON_HOME": str(self.home),
                "DALSTON_PORT": str(self.port),
                "MARK": self.mark,
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_up(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("The stack is up" in line for line in lines), process.communicate()

    def left(self) -> list[str]:
        """Running processes of this stack, identified by a mark in their environment or by their folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("MARK") == self.mark or Path(process.cwd()).is_relative_to(self.home):
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def wait_until_gone(self, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path / "home")
    yield command
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == command.mark:
                process.kill()
        except psutil.Error:
            continue
