import os
import signal
import sys
import time
from pathlib import Path

import pytest

from stack.errors import CannotStart, Interrupted, NotReady, ProcessDied
from stack.process import Process, running


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "part.log"
    for word in ("first", "second"):
        with running("part", python(f"print('{word}')"), log=log) as process:
            assert process.finish() == 0
            assert process.last_lines() == [word]
    assert log.read_text() == "first\nsecond\n"


def test_a_process_that_ends_before_it_is_ready_is_reported(tmp_path: Path) -> None:
    failing = python("import sys; print('no such model'); sys.exit(3)")
    with (
        pytest.raises(ProcessDied, match=r"part ended with exit code 3(.|\n)*no such model"),
        running("part", failing, log=tmp_path / "log") as process,
    ):
        process.wait_until(lambda: False, 10)


def test_a_process_that_does_not_become_ready_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(NotReady, match="part was not ready within 0 s"),
        running("part", python("import time; time.sleep(60)"), log=tmp_path / "log") as process,
    ):
        process.wait_until(lambda: False, 0.2)
    assert process.exit_code() == -signal.SIGTERM


def test_an_interrupted_start_stops_the_process(tmp_path: Path) -> None:
    def pause(seconds: float) -> None:
        raise Interrupted

    with (
        pytest.raises(Interrupted),
        running("part", python("import time; time.sleep(60)"), log=tmp_path / "log") as process,
    ):
        process.wait_until(lambda: False, 10, pause)
    assert process.exit_code() is not None


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('ready'); time.sleep(60)")
    with running("part", stubborn, log=tmp_path / "log", stop=((signal.SIGTERM, 0.2),)) as process:
        process.wait_until(lambda: process.last_lines() == ["ready"], 10)
    assert process.exit_code() == -signal.SIGKILL


def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed and cannot clean up."""
    parent = f"""
import os, signal, sys, pathlib
from stack.process import running
sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
with running("child", sleeper, log=pathlib.Path("{tmp_path}/log")) as child:
    child.wait_until(lambda: b"time.sleep" in open(f"/proc/{{child.popen.pid}}/cmdline", "rb").read(), 10)
    print(child.popen.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with running("parent", python(parent), log=tmp_path / "parent.log") as process:
        assert process.finish() == -signal.SIGKILL
        pid = int(process.last_lines(1)[0])
    deadline = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(ProcessDied, match="cannot run /no/such/program"),
        running("part", ["/no/such/program"], log=tmp_path / "log") as process,
    ):
        process.wait_until(lambda: False, 10)


def test_a_log_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CannotStart, match="cannot start part"),
        running("part", python("pass"), log=tmp_path / "file" / "log"),
    ):
        pass


def test_ctrl_c_at_the_terminal_stays_with_the_parent(tmp_path: Path) -> None:
    with running("part", python("import time; time.sleep(60)"), log=tmp_path / "log") as process:
        assert isinstance(process, Process)
        assert os.getsid(process.popen.pid) != os.getsid(0)
