import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from stack.errors import CannotStart
from stack.home import locked_home
from stack.settings import ROOT

Usage = namedtuple("Usage", "total used free")


def test_one_stack_at_a_time_may_use_a_home(tmp_path: Path) -> None:
    with locked_home(tmp_path), pytest.raises(CannotStart, match="another stack"), locked_home(tmp_path):
        pass
    with locked_home(tmp_path):
        pass


def test_a_full_disk_is_reported_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 3 * 2**20))
    with pytest.raises(CannotStart, match="only 3 MiB are free"), locked_home(tmp_path):
        pass


def test_the_logs_of_earlier_starts_are_kept(tmp_path: Path) -> None:
    for output in ("first", "second", "third"):
        with locked_home(tmp_path) as home:
            home.log("server").write_text(output)
    assert home.log("server").read_text() == "third"
    assert home.log("server").with_name("server.log.1").read_text() == "second"
    assert home.log("server").with_name("server.log.2").read_text() == "first"


def test_a_new_folder_is_private_to_its_user(tmp_path: Path) -> None:
    with locked_home(tmp_path / "new") as home:
        for path in (home.spool, home.log("any").parent, home.socket("any").parent):
            assert path.stat().st_mode & 0o777 == 0o700, path
        assert home.path.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot change owners")
def test_the_target_of_a_planted_link_keeps_its_owner(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(0o755)
    home_path = tmp_path / "home"
    with locked_home(home_path) as home:
        home.spool.rmdir()
        home.spool.symlink_to(secret)
    with pytest.raises(CannotStart, match="it is a link where a folder should be"), locked_home(home_path):
        pass
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o755)


def test_a_folder_with_other_files_stays_open_and_new_folders_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "other").touch(0o644)
    with locked_home(tmp_path) as home:
        assert tmp_path.stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "other").stat().st_mode & 0o777 == 0o644
        assert home.spool.stat().st_mode & 0o777 == 0o700


def test_open_folders_of_an_earlier_version_become_private(tmp_path: Path) -> None:
    old = tmp_path / "logs" / "server.log.1"
    (tmp_path / "spool" / "server-1").mkdir(parents=True)
    recorded = tmp_path / "spool" / "server-1" / "audio"
    old.parent.mkdir()
    for path in (old, recorded):
        path.write_text("output")
        path.chmod(0o644)
    with locked_home(tmp_path):
        assert {path.stat().st_mode & 0o777 for path in (old, recorded)} == {0o600}
        assert recorded.parent.stat().st_mode & 0o777 == 0o700


def test_socket_paths_are_short_in_a_folder_with_a_long_path(tmp_path: Path) -> None:
    with locked_home(tmp_path / ("long" * 25)) as home:
        path = home.socket("server")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


def test_sockets_of_a_stack_that_was_killed_are_removed(tmp_path: Path) -> None:
    home_path = tmp_path / ("long" * 25)
    program = f"""
import os, pathlib
from stack.home import locked_home
with locked_home(pathlib.Path({str(home_path)!r})) as home:
    print(home.socket("server").parent, flush=True)
    os._exit(0)
"""
    output = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    left = Path(output.stdout.strip())
    assert left.exists()
    with locked_home(home_path):
        assert not left.exists()
