"""When a part is restarted, and when it is not."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack import keeper as keeper_module
from stack.errors import CannotStart, Interrupted, ProcessDied
from stack.keeper import GivenUp, Keeper, Service
from stack.process import Process, running
from stack.progress import Silent

SLEEP = "import time; time.sleep(60)"


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        self.lines.append(words)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def keeper(notes: Notes) -> Iterator[Keeper]:
    with Keeper(notes) as keeper:
        yield keeper


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_FIRST_DELAY_SECONDS", 0.01)


class Program:
    """A service whose program and readiness change."""

    def __init__(self, folder: Path, name: str, *needs: str) -> None:
        self._log = folder / f"{name}.log"
        self.code = SLEEP
        self.is_ready = True
        self.launched: list[float] = []
        self.refuses = False
        self.service = Service(name, self._launch, lambda: self.is_ready, 10, needs)

    @contextmanager
    def _launch(self) -> Iterator[Process]:
        self.launched.append(time.monotonic())
        if self.refuses:
            raise CannotStart("the disk is full")
        with running(self.service.name, [sys.executable, "-c", self.code], log=self._log) as process:
            yield process

    def up(self, keeper: Keeper) -> Process:
        keeper.launch(self.service)
        return keeper.wait(self.service, time.sleep)


def kill(process: Process) -> None:
    process.popen.kill()
    process.popen.wait()


def check_until(keeper: Keeper, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        keeper.check()
        time.sleep(0.005)
        assert time.monotonic() < deadline


def test_a_part_that_dies_is_restarted_and_noted_once(tmp_path: Path, keeper: Keeper, notes: Notes) -> None:
    program = Program(tmp_path, "server")
    kill(program.up(keeper))
    check_until(keeper, lambda: len(program.launched) == 2 and keeper.all_ready)
    log = tmp_path / "server.log"
    assert notes.lines == [
        f"server was killed by signal 9; starting it again in 0.0 s (its log: {log})",
        "server is back",
    ]


def test_the_back_off_grows(tmp_path: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_FIRST_DELAY_SECONDS", 0.2)
    program = Program(tmp_path, "server")
    kill(program.up(keeper))
    program.refuses = True
    with pytest.raises(GivenUp):
        check_until(keeper, lambda: False)
    pauses = [later - earlier for earlier, later in zip(program.launched[1:], program.launched[2:], strict=False)]
    assert [round(pause / 0.2) for pause in pauses] == [2, 4, 8]


def test_a_part_that_keeps_failing_ends_with_its_last_error(tmp_path: Path, keeper: Keeper) -> None:
    program = Program(tmp_path, "server")
    kill(program.up(keeper))
    program.code = "import sys; sys.exit('no such model')"
    program.is_ready = False
    with pytest.raises(GivenUp, match=r"server failed 5 times in a row(.|\n)*exit code 1(.|\n)*no such model"):
        check_until(keeper, lambda: False)
    assert len(program.launched) == keeper_module.MAX_FAILURES


def test_a_part_that_ran_for_a_while_has_all_restarts_again(
    tmp_path: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "STABLE_SECONDS", 0)
    program = Program(tmp_path, "server")
    program.up(keeper)
    for _ in range(keeper_module.MAX_FAILURES + 2):
        keeper.check()
        kill(keeper.processes[0])
        keeper.check()
        check_until(keeper, lambda: keeper.all_ready)


def test_a_part_that_does_not_become_ready_is_restarted(tmp_path: Path, keeper: Keeper, notes: Notes) -> None:
    program = Program(tmp_path, "server")
    program.service = Service("server", program._launch, lambda: program.is_ready, 0.3)
    first = program.up(keeper)
    program.is_ready = False
    kill(first)
    check_until(keeper, lambda: len(program.launched) == 3)
    assert any("was not ready within 0 s; starting it again" in line for line in notes.lines)


def test_other_parts_are_supervised_while_a_hung_part_is_stopped(tmp_path: Path, keeper: Keeper) -> None:
    """The hung part ignores SIGTERM, which has ten seconds."""
    hanging, other, is_deaf = Program(tmp_path, "server"), Program(tmp_path, "bridge"), tmp_path / "deaf"

    @contextmanager
    def launch() -> Iterator[Process]:
        with hanging._launch() as process:
            while hanging.code != SLEEP and not is_deaf.exists():
                time.sleep(0.01)
            yield process

    hanging.service = Service("server", launch, lambda: hanging.is_ready, 0.0)
    first, neighbour = hanging.up(keeper), other.up(keeper)
    deafness = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path({str(is_deaf)!r}).touch()"
    hanging.code = f"import pathlib, signal; {deafness}; {SLEEP}"
    hanging.is_ready = False
    kill(first)
    check_until(keeper, lambda: len(hanging.launched) == 2)
    hung = keeper.processes[0]
    kill(neighbour)
    check_until(keeper, lambda: len(other.launched) == 2)
    assert (hung.exit_code(), len(hanging.launched)) == (None, 2)
    hanging.code, hanging.is_ready = SLEEP, True
    kill(hung)
    check_until(keeper, lambda: len(hanging.launched) == 3 and keeper.all_ready)


def test_a_part_waits_for_the_parts_that_it_needs(tmp_path: Path, keeper: Keeper) -> None:
    database, server = Program(tmp_path, "postgres"), Program(tmp_path, "server", "postgres", "not ours")
    both = database.up(keeper), server.up(keeper)
    database.is_ready = False
    for process in both:
        kill(process)
    check_until(keeper, lambda: len(database.launched) == 2)
    for _ in range(20):
        keeper.check()
        time.sleep(0.01)
    assert len(server.launched) == 1
    database.is_ready = True
    check_until(keeper, lambda: keeper.all_ready)
    assert len(server.launched) == 2


def test_a_failure_at_the_first_start_ends_the_stack(tmp_path: Path, keeper: Keeper) -> None:
    program = Program(tmp_path, "server")
    program.code = "import sys; sys.exit('no such model')"
    program.is_ready = False
    with pytest.raises(ProcessDied, match="no such model"):
        program.up(keeper)
    assert len(program.launched) == 1


def test_a_part_that_dies_during_the_start_ends_the_stack(tmp_path: Path, keeper: Keeper) -> None:
    database, server = Program(tmp_path, "postgres"), Program(tmp_path, "server")
    kill(database.up(keeper))
    server.is_ready = False
    with pytest.raises(ProcessDied, match="postgres was killed"):
        server.up(keeper)


def test_a_signal_during_a_restart_is_no_failure(tmp_path: Path, notes: Notes) -> None:
    program = Program(tmp_path, "server")

    @contextmanager
    def interrupted() -> Iterator[Process]:
        if program.launched:
            raise Interrupted
        with program._launch() as process:
            yield process

    service = Service("server", interrupted, lambda: True, 10)
    with pytest.raises(Interrupted), Keeper(notes) as keeper:
        keeper.launch(service)
        kill(keeper.wait(service, time.sleep))
        check_until(keeper, lambda: False)
    assert len(notes.lines) == 1


def test_parts_are_stopped_in_reverse_order(tmp_path: Path, notes: Notes) -> None:
    ended: list[str] = []

    def service(name: str) -> Service:
        @contextmanager
        def launch() -> Iterator[Process]:
            with running(name, [sys.executable, "-c", SLEEP], log=tmp_path / name) as process:
                yield process
            ended.append(name)
            assert process.exit_code() == -signal.SIGTERM

        return Service(name, launch, lambda: True, 10)

    with Keeper(notes) as keeper:
        for name in ("one", "two", "three"):
            keeper.launch(service(name))
    assert ended == ["three", "two", "one"]
