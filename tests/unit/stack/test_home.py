import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from stack.errors import CannotStart
from stack.home import occupied

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


def test_the_logs_of_the_start_before_are_kept(tmp_path: Path) -> None:
    for said in ("first", "second", "third"):
        with occupied(tmp_path) as home:
            home.log("server").parent.mkdir(exist_ok=True)
            home.log("server").write_text(said)
    assert home.log("server").read_text() == "third"
    assert home.log("server").with_name("server.log.1").read_text() == "second"
