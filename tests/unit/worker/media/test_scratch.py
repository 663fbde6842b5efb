from pathlib import Path

import pytest

from worker.media.errors import NoDiskSpace
from worker.media.scratch import Scratch


def test_files_share_one_budget(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 100, min_free_bytes=0)
    scratch.reserve(60)
    with pytest.raises(NoDiskSpace):
        scratch.reserve(41)
    assert (scratch.reserved_bytes, scratch.available_bytes) == (60, 40)
    scratch.release(60)
    scratch.reserve(100)
    scratch.check()
    scratch.count(1)
    with pytest.raises(NoDiskSpace):
        scratch.check()
    assert scratch.available_bytes == 0


def test_the_disk_keeps_what_must_stay_free(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1 << 60, min_free_bytes=1 << 60)
    assert scratch.available_bytes == 0
    with pytest.raises(NoDiskSpace):
        scratch.reserve(1)
    with pytest.raises(NoDiskSpace):
        scratch.check()
