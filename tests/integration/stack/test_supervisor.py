"""The process tree: complete while the stack is up, and gone afterwards, whatever ended it."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import ValidationError

from stack.cli import run
from stack.errors import CannotStart, ProcessDied
from stack.interruption import Interruption
from stack.keeper import GivenUp
from stack.ports import free_port
from stack.postgres import PostgresServer
from stack.process import Process
from stack.progress import Silent
from stack.seaweedfs import S3Server
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack
from tests.integration.stack.conftest import Command
from tests.integration.stack.substitute import programs

PARTS = ["seaweedfs", "postgres", "server", "worker", "uploads", "bridge", "envoy"]


# The substitutes do not use it; it saves the start of an S3 server.
OUTER_S3 = "http://127.0.0.1:9"


@pytest.fixture
def external(postgres_server: PostgresServer) -> dict[str, str]:
    """The environment of a stack with external stores."""
    return {"DALSTON_DATABASE_URL": postgres_server.url, "DALSTON_S3_ENDPOINT_URL": OUTER_S3}


def settings(home: Path, **more: object) -> StackSettings:
    values = {"home": home, "port": free_port(), "database_url": None, "s3_endpoint_url": None, "s3_bucket": None}
    return StackSettings(**(values | more))


def test_all_parts_run_and_end_with_the_stack(tmp_path: Path) -> None:
    with running_stack(settings(tmp_path), programs=programs()) as stack:
        stack.check()
        assert [process.name for process in stack.processes] == PARTS
        assert httpx.get(f"{stack.base_url}/nothing").json()["code"] == 5
        pids = [process.popen.pid for process in stack.processes]
        assert all(psutil.pid_exists(pid) for pid in pids)
        logs = tmp_path / "logs"
        assert {path.name for path in logs.iterdir()} >= {"server.log", "postgres.log"}
        # Envoy writes its access log once a second.
        deadline = time.monotonic() + 20
        while not (logs / "access.log").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (logs / "access.log").exists()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_external_stores_are_used_instead_of_embedded_ones(
    tmp_path: Path, postgres_server: PostgresServer, s3: S3Server
) -> None:
    external = settings(tmp_path, database_url=postgres_server.url, s3_endpoint_url=s3.endpoint_url)
    with running_stack(external, programs=programs()) as stack:
        names = ["server", "worker", "uploads", "bridge", "envoy"]
        assert [process.name for process in stack.processes] == names
        assert stack.database_url == postgres_server.url
        assert stack.s3 is None


def test_a_stack_without_enhancements_has_no_worker(
    tmp_path: Path, postgres_server: PostgresServer, s3: S3Server
) -> None:
    external = settings(tmp_path, database_url=postgres_server.url, s3_endpoint_url=s3.endpoint_url, enhance=False)
    with running_stack(external, programs=programs()) as stack:
        assert [process.name for process in stack.processes] == ["server", "uploads", "bridge", "envoy"]


class Notes(Silent):
    """The notes that a person at the terminal reads."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, words: str, *, is_good: bool, seconds: float | None = None) -> None:
        self.lines.append(words)


def kill(stack: Stack, part: str) -> None:
    """Kills a part and waits until the stack notices it."""
    process = process_of(stack, part)
    process.popen.kill()
    process.popen.wait()
    stack.check()


def process_of(stack: Stack, part: str) -> Process:
    return next(process for process in stack.processes if process.name == part)


def wait_until_all_ready(stack: Stack) -> None:
    deadline = time.monotonic() + 60
    while not stack.keeper.all_ready:
        stack.check()
        time.sleep(0.05)
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Notes, set[int]]]:
    """A stack whose parts the tests kill, its notes, and the ids of all processes that it has had."""
    notes, pids = Notes(), set[int]()
    with running_stack(settings(tmp_path_factory.mktemp("mortal")), programs=programs(), progress=notes) as stack:
        yield stack, notes, pids
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_dies_is_restarted_on_its_address(mortal: tuple[Stack, Notes, set[int]], part: str) -> None:
    stack, notes, pids = mortal
    notes.lines.clear()
    before = {process.name: process.popen.pid for process in stack.processes}
    listened = listening(stack)
    kill(stack, part)
    log = process_of(stack, part).log
    assert notes.lines == [f"{part} was killed by signal 9; starting it again in 0.2 s (its log: {log})"]
    wait_until_all_ready(stack)
    assert notes.lines[1:] == [f"{part} is back"]
    after = {process.name: process.popen.pid for process in stack.processes}
    pids |= {*before.values(), *after.values()}
    assert [name for name in before if before[name] != after[name]] == [part]
    assert listening(stack) == listened
    assert httpx.get(f"{stack.base_url}/nothing").json()["code"] == 5


def listening(stack: Stack) -> set[int]:
    found: set[int] = set()
    for process in stack.processes:
        connections = psutil.Process(process.popen.pid).net_connections("tcp")
        found |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return found


def test_a_part_that_keeps_dying_stops_the_stack_with_its_error(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    external = settings(tmp_path, s3_endpoint_url=OUTER_S3, database_url=postgres_server.url)
    with (
        pytest.raises(GivenUp, match=r"server failed 5 times in a row(.|\n)*killed by signal 9") as caught,
        running_stack(external, programs=programs()) as stack,
    ):
        pids = []
        while True:
            pids.append(process_of(stack, "server").popen.pid)
            kill(stack, "server")
            wait_until_all_ready(stack)
    assert str(tmp_path / "logs" / "server.log") in str(caught.value)
    assert len(set(pids)) == 5
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_server_that_cannot_restart_stops_the_stack_with_its_log(command: Command, external: dict[str, str]) -> None:
    """The terminal shows a line per failure, and the reason at the end."""
    process = command.start("broken_later", **external, STAND_IN_MARK=str(command.home.with_name("mark")))
    command.wait_until_up(process)
    (server,) = (each for each in psutil.Process(process.pid).children() if "server" in each.cmdline())
    command.home.with_name("mark").touch()
    server.kill()
    output, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.count("; starting it again in ") == 4
    assert "server was killed by signal 9; starting it again" in output
    assert "server ended with exit code 1; starting it again" in output
    assert "server failed 5 times in a row" in complaint
    assert "the configuration makes no sense any more" in complaint
    assert command.left() == []


def test_ctrl_c_during_a_restart_stops_all_parts(command: Command, external: dict[str, str]) -> None:
    process = command.start(**external)
    command.wait_until_up(process)
    assert process.stdout is not None
    (server,) = (each for each in psutil.Process(process.pid).children() if "server" in each.cmdline())
    server.kill()
    assert any("starting it again" in line for line in iter(process.stdout.readline, ""))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert command.left() == []


def test_the_error_of_a_server_that_cannot_start_is_shown(tmp_path: Path, postgres_server: PostgresServer) -> None:
    external = settings(tmp_path, s3_endpoint_url=OUTER_S3, database_url=postgres_server.url)
    with (
        pytest.raises(ProcessDied, match=r"exit code 1(.|\n)*the configuration makes no sense"),
        running_stack(external, programs=programs("broken")),
    ):
        pass


def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    failing = ("/bin/sh", "-c", "echo fetching; echo there is no model of this name >&2; exit 1")
    with (
        pytest.raises(CannotStart, match=r"^there is no model of this name"),
        running_stack(settings(tmp_path), programs=programs(weights=failing)),
    ):
        pass


def test_a_mistyped_setting_is_reported_with_the_likely_name(command: Command) -> None:
    with socket.create_server(("127.0.0.1", command.port)):
        process = command.start(DALSTON_ALOWED_ORIGINS="hunter2")
        _, log = process.communicate(timeout=60)
    assert "DALSTON_ALOWED_ORIGINS is no setting and is ignored; did you mean DALSTON_ALLOWED_ORIGINS?" in log
    assert "hunter2" not in log


def test_a_port_in_use_is_reported_before_anything_starts(command: Command) -> None:
    with socket.create_server(("127.0.0.1", command.port)):
        process = command.start()
        _, complaint = process.communicate(timeout=20)
    assert process.returncode == 1
    # gRPC's core may write a line of its own when the machine is busy.
    assert len([line for line in complaint.splitlines() if "epoll" not in line]) == 1
    assert f"port {command.port} on 127.0.0.1 is in use" in complaint
    assert not command.home.exists()


def test_a_second_stack_on_the_same_home_is_refused(command: Command, external: dict[str, str]) -> None:
    first = command.start(**external)
    command.wait_until_up(first)
    second = command.start(DALSTON_PORT=str(free_port()))
    _, complaint = second.communicate(timeout=20)
    assert second.returncode == 1
    assert complaint.count("\n") == 1
    assert f"another stack (process {first.pid}) is running on {command.home}" in complaint
    first.send_signal(signal.SIGINT)
    assert first.wait(20) == 0
    first.communicate()


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"DALSTON_HOST": "0.0.0.0"}, "refusing to listen on 0.0.0.0 with DALSTON_AUTH=none"),  # noqa: S104
        ({"DALSTON_HOST": "198.51.100.7", "DALSTON_ALLOW_UNAUTHENTICATED": "true"}, "no address of this machine"),
        ({"DALSTON_PORT": "seventy"}, "DALSTON_PORT"),
        ({"DALSTON_HOME": "/dev/null/home"}, "cannot write to /dev/null/home"),
    ],
)
def test_invalid_settings_are_one_sentence(command: Command, env: dict[str, str], shown: str) -> None:
    process = command.start(**env)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode in (1, 2)
    assert complaint.count("\n") == 1
    assert shown in complaint


@pytest.mark.parametrize("seconds", [0.3, 0.9, 1.5, 2.5, 4.0])
def test_ctrl_c_during_the_start_leaves_no_process(command: Command, seconds: float) -> None:
    process = command.start()
    with pytest.raises(TimeoutError):
        wait(process.pid, seconds)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode in (130, 0, -signal.SIGINT)
    # The exit code of Python itself, if the signal arrives before the handlers are installed.
    assert "Traceback" not in complaint or seconds < 1 or "<frozen importlib" in complaint
    assert command.left() == []


def wait(pid: int, seconds: float) -> None:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.TimeoutExpired:
        raise TimeoutError from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_running_stack_with_success(
    command: Command, external: dict[str, str], number: signal.Signals
) -> None:
    process = command.start(**({} if number == signal.SIGINT else external))
    command.wait_until_up(process)
    assert len(command.left()) >= (6 if number == signal.SIGINT else 4)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert command.left() == []


def test_a_second_ctrl_c_kills_a_part_that_ignores_sigterm(command: Command, external: dict[str, str]) -> None:
    process = command.start("stubborn", **external)
    command.wait_until_up(process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(TimeoutError):
        wait(process.pid, 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=3)
    assert command.left() == []


def test_a_killed_supervisor_leaves_no_process_and_blocks_no_start(command: Command) -> None:
    process = command.start("stubborn")
    command.wait_until_up(process)
    process.kill()
    process.communicate(timeout=5)
    command.wait_until_gone()
    again = command.start()
    command.wait_until_up(again)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=20)
    assert again.returncode == 0


@pytest.mark.timeout(120)
def test_up_with_keys_shows_how_to_create_the_first_one(command: Command) -> None:
    process = command.start(DALSTON_AUTH="keys", DALSTON_S3_ENDPOINT_URL=OUTER_S3)
    command.wait_until_up(process)
    assert process.stdout is not None
    output = ""
    while "curl -H" not in output and (line := process.stdout.readline()):
        output += line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert "persistence.access create-key --tenant default" in output
    assert f"DALSTON_HOME={command.home} " in output
    assert f"console     http://localhost:{command.port}/console/" in output
    assert "postgresql://dalston@127.0.0.1:" in output
    assert (command.home / "postgres" / "password").read_text() not in output
    assert 'curl -H "Authorization: Bearer $KEY"' in output


@pytest.mark.parametrize("setting", [{"DALSTON_AUTH": "keys"}, {"DALSTON_TLS_CERT": "c", "DALSTON_TLS_KEY": "k"}])
def test_the_demo_is_refused_with_keys_or_tls(
    setting: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with Interruption() as interruption:
        assert run(["demo"], interruption, programs()) == 1
    assert "without keys and without TLS" in capsys.readouterr().err


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = settings(tmp_path, tls_cert=tmp_path / "chain.pem", tls_key=tmp_path / "key.pem")
    with pytest.raises(CannotStart, match="DALSTON_TLS_CERT"), running_stack(missing, programs=programs()):
        pass


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="go together"):
        settings(tmp_path, tls_cert=tmp_path / "chain.pem")
