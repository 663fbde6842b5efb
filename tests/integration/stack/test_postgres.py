"""The launcher of Postgres."""

import os
import pwd
import signal
import threading
from pathlib import Path

import asyncpg
import pytest

from stack.errors import CannotStart, ProcessDied
from stack.postgres import postgres


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        await ask(server.url, "CREATE TABLE kept AS SELECT 42 AS number")
        assert await ask(server.url, "SHOW server_encoding") == "UTF8"
    with postgres(tmp_path) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 42


async def test_a_killed_server_and_a_number_since_given_to_another_do_not_block_a_start(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        await ask(server.url, "CREATE TABLE kept AS SELECT 42 AS number")
        os.kill(server.process.popen.pid, signal.SIGKILL)
        server.process.popen.wait()
    pid_file = tmp_path / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # The parent of this process lives, belongs to another user than Postgres runs as, and is none of its ancestors.
    pid_file.write_text("\n".join(["1", *lines[1:]]) + "\n")
    with postgres(tmp_path) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 42


async def test_the_password_is_asked_for(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        assert (tmp_path / "password").stat().st_mode & 0o077 == 0
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(server.url.replace(server.password, "guess"), "SELECT 1")
        assert server.password not in repr(server)


def test_its_address_is_kept_for_its_user_while_it_runs(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        assert (tmp_path / "url").read_text() == server.url
        assert (tmp_path / "url").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "url").exists()


def test_an_initialisation_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
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
        assert int(rights[0], 16) in (1 << 1, 1 << 2), "nothing but the right to search"
        assert "Uid:\t0" not in status


def test_a_user_without_a_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.setattr("stack.postgres.unprivileged", lambda _: None)  # as when an ordinary user starts it
    with pytest.raises(CannotStart, match="only as a user with a name"), postgres(tmp_path):
        pass


def test_a_server_that_cannot_read_its_configuration_says_so(tmp_path: Path) -> None:
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
