"""The user that the parts run as if root starts them."""

import os
from pathlib import Path

import pytest

from stack import identity
from stack.identity import Identity, make_private, unprivileged

OTHER_USER = Identity(os.getuid() + 61_000, os.getgid() + 61_000)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwnam", {}.__getitem__)


@pytest.fixture
def open_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below folders that everybody may enter."""
    monkeypatch.setattr(Path, "parents", property(lambda path: [tmp_path] if path != tmp_path else []))
    tmp_path.chmod(0o755)
    return tmp_path


def test_an_ordinary_user_keeps_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged(tmp_path) is None


@pytest.mark.usefixtures("as_root")
def test_a_folder_always_gets_the_same_unassigned_user(tmp_path: Path) -> None:
    one, same, other = (unprivileged(tmp_path / name) for name in ("one", "one", "other"))
    assert one == same != other
    assert one is not None
    assert 60578 <= one.uid == one.gid <= 61183
    assert one.keep == ()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change owners")
@pytest.mark.usefixtures("as_root")
def test_a_folder_of_an_ordinary_user_keeps_its_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER_USER.uid, OTHER_USER.gid)
    assert unprivileged(tmp_path) == OTHER_USER


def test_paths_that_everybody_may_read_need_no_right(open_folder: Path) -> None:
    program = open_folder / "program"
    program.touch(0o755)
    assert OTHER_USER.reaching(program, open_folder / "not there") == OTHER_USER


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_closed_folders_need_the_right_to_search(open_folder: Path, closed: str) -> None:
    program = open_folder / "program"
    program.touch(0o755)
    if closed == "folder":
        open_folder.chmod(0o700)
    else:
        program.chmod(0o600)
    assert OTHER_USER.reaching(program).keep == ("search",)


def test_only_low_ports_need_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_first_unprivileged_port", lambda: 1024)
    assert OTHER_USER.binding(8000) == OTHER_USER
    assert OTHER_USER.binding(443).keep == ("bind",)


def test_a_folder_and_its_content_become_private(tmp_path: Path) -> None:
    folder = tmp_path / "s3" / "data"
    folder.mkdir(parents=True)
    (folder / "1.dat").touch(0o644)
    (folder / "link").symlink_to("/etc/passwd")
    make_private(tmp_path / "s3", None)
    assert (tmp_path / "s3").stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "1.dat").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners")
def test_files_of_root_change_owner_and_targets_of_links_do_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o644)
    folder = tmp_path / "s3"
    folder.mkdir()
    (folder / "1.dat").touch()
    (folder / "link").symlink_to(outside)
    make_private(folder, OTHER_USER)
    assert {folder.stat().st_uid, (folder / "1.dat").stat().st_uid} == {OTHER_USER.uid}
    assert (outside.stat().st_uid, outside.stat().st_mode & 0o777) == (0, 0o644)
