import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from stack.errors import CannotStart
from stack.home import occupied
from stack.settings import ROOT

Usage = namedtuple("Usage", "total used free")


def test_it_is_for_one_at_a_time(tmp_path: Path) -> None:
    with occupied(tmp_path), pytest.raises(CannotStart, match="another stack"), occupied(tmp_path):
        pass
    with occupied(tmp_path):
        pass


def test_a_full_disk_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 3 * 2**20))
    with pytest.raises(CannotStart, match="only 3 MiB are free"), occupied(tmp_path):
        pass


def test_the_logs_of_the_starts_before_are_kept(tmp_path: Path) -> None:
    for said in ("first", "second", "third"):
        with occupied(tmp_path) as home:
            home.log("server").write_text(said)
    assert home.log("server").read_text() == "third"
    assert home.log("server").with_name("server.log.1").read_text() == "second"
    assert home.log("server").with_name("server.log.2").read_text() == "first"


def test_a_folder_made_for_it_is_its_users_alone(tmp_path: Path) -> None:
    with occupied(tmp_path / "new") as home:
        for path in (home.spool, home.log("any").parent, home.socket("any").parent):
            assert path.stat().st_mode & 0o777 == 0o700, path
        assert home.path.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has nothing to give away")
def test_what_a_part_links_to_is_not_given_to_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(0o755)
    home_path = tmp_path / "home"
    with occupied(home_path) as home:
        home.spool.rmdir()
        home.spool.symlink_to(secret)
    with pytest.raises(CannotStart, match="it is a link where a folder should be"), occupied(home_path):
        pass
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o755)


def test_a_folder_that_holds_more_stays_open_and_what_is_made_in_it_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "other").touch(0o644)
    with occupied(tmp_path) as home:
        assert tmp_path.stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "other").stat().st_mode & 0o777 == 0o644
        assert home.spool.stat().st_mode & 0o777 == 0o700


def test_what_an_earlier_version_left_open_is_closed(tmp_path: Path) -> None:
    old = tmp_path / "logs" / "server.log.1"
    (tmp_path / "spool" / "server-1").mkdir(parents=True)
    recorded = tmp_path / "spool" / "server-1" / "audio"
    old.parent.mkdir()
    for path in (old, recorded):
        path.write_text("what was said")
        path.chmod(0o644)
    with occupied(tmp_path):
        assert {path.stat().st_mode & 0o777 for path in (old, recorded)} == {0o600}
        assert recorded.parent.stat().st_mode & 0o777 == 0o700


def test_sockets_have_short_names_however_long_that_of_the_folder_is(tmp_path: Path) -> None:
    with occupied(tmp_path / ("long" * 25)) as home:
        path = home.socket("server")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


def test_sockets_of_a_stack_that_was_killed_are_removed(tmp_path: Path) -> None:
    home_path = tmp_path / ("long" * 25)
    program = f"""
import os, pathlib
from stack.home import occupied
with occupied(pathlib.Path({str(home_path)!r})) as home:
    print(home.socket("server").parent, flush=True)
    os._exit(0)
"""
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    left = Path(said.stdout.strip())
    assert left.exists()
    with occupied(home_path):
        assert not left.exists()
