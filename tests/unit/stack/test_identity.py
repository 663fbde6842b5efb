"""Who the parts run as where root starts them."""

import os
from pathlib import Path

import pytest

from stack import identity
from stack.identity import Identity, own, unprivileged

SOMEBODY = Identity(os.getuid() + 61_000, os.getgid() + 61_000)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwnam", {}.__getitem__)


@pytest.fixture
def open_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if all above it were open."""
    monkeypatch.setattr(Path, "parents", property(lambda path: [tmp_path] if path != tmp_path else []))
    tmp_path.chmod(0o755)
    return tmp_path


def test_an_ordinary_user_stays_who_he_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged(tmp_path) is None


@pytest.mark.usefixtures("as_root")
def test_a_folder_has_always_the_same_user_who_is_nobody_else(tmp_path: Path) -> None:
    one, same, other = (unprivileged(tmp_path / name) for name in ("one", "one", "other"))
    assert one == same != other
    assert one is not None
    assert 60578 <= one.uid == one.gid <= 61183
    assert one.keep == ()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
@pytest.mark.usefixtures("as_root")
def test_a_folder_of_an_ordinary_user_stays_theirs(tmp_path: Path) -> None:
    os.chown(tmp_path, SOMEBODY.uid, SOMEBODY.gid)
    assert unprivileged(tmp_path) == SOMEBODY


def test_what_everybody_may_read_needs_no_right(open_folder: Path) -> None:
    program = open_folder / "program"
    program.touch(0o755)
    assert SOMEBODY.reaching(program, open_folder / "not there") == SOMEBODY


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_what_is_closed_needs_the_right_to_search(open_folder: Path, closed: str) -> None:
    program = open_folder / "program"
    program.touch(0o755)
    if closed == "folder":
        open_folder.chmod(0o700)
    else:
        program.chmod(0o600)
    assert SOMEBODY.reaching(program).keep == ("search",)


def test_only_low_ports_need_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_first_unprivileged_port", lambda: 1024)
    assert SOMEBODY.binding(8000) == SOMEBODY
    assert SOMEBODY.binding(443).keep == ("bind",)


def test_a_folder_becomes_private_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "s3" / "data"
    folder.mkdir(parents=True)
    (folder / "1.dat").touch(0o644)
    (folder / "link").symlink_to("/etc/passwd")
    own(tmp_path / "s3", None)
    assert (tmp_path / "s3").stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "1.dat").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_had_made_is_given_to_the_user_and_what_links_lead_to_is_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o644)
    folder = tmp_path / "s3"
    folder.mkdir()
    (folder / "1.dat").touch()
    (folder / "link").symlink_to(outside)
    own(folder, SOMEBODY)
    assert {folder.stat().st_uid, (folder / "1.dat").stat().st_uid} == {SOMEBODY.uid}
    assert (outside.stat().st_uid, outside.stat().st_mode & 0o777) == (0, 0o644)
