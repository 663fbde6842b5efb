"""A directory in the spool belongs to its process while that is alive."""

import subprocess
import sys
from pathlib import Path

import pytest

from persistence.errors import SpoolInUse
from persistence.spool.spool_home import SpoolHome

HOLD = """
import sys
from pathlib import Path
from persistence.spool.spool_home import SpoolHome
home = SpoolHome.open(Path(sys.argv[1]), "other")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_worker_id_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    home = SpoolHome.open(tmp_path, "worker")
    with pytest.raises(SpoolInUse):
        SpoolHome.open(tmp_path, "worker")
    home.release(delete=True)
    SpoolHome.open(tmp_path, "worker").release(delete=True)
    assert list(tmp_path.iterdir()) == []


def test_only_the_directory_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert list(SpoolHome.take_over(tmp_path)) == []
        process.kill()
        process.wait()
    [home] = SpoolHome.take_over(tmp_path)
    assert home.worker_id == "other"
    home.release(delete=True)


def test_a_directory_with_a_session_is_not_deleted(tmp_path: Path) -> None:
    home = SpoolHome.open(tmp_path, "worker")
    (tmp_path / "worker" / "sess_x").mkdir()
    home.release(delete=True)
    home.release(delete=True)
    assert (tmp_path / "worker" / "sess_x").exists()


def test_other_files_in_the_spool_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert list(SpoolHome.take_over(tmp_path)) == []
