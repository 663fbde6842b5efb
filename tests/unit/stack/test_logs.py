"""Log files are bounded and lose no line."""

import os
import sys
import threading
from pathlib import Path

import pytest

from stack import logs
from stack.errors import CannotStart
from stack.logs import OLD_FILES, Pump, append
from stack.process import running

LIMIT, CHUNK = 10_000, 1000


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LINE_BYTES", LIMIT)
    monkeypatch.setattr(logs, "_CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(append, "__defaults__", (LIMIT,))


def files(log: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    numbered = sorted(log.parent.glob(f"{log.name}.*"), key=lambda path: -int(path.suffix[1:]))
    return [*numbered, log]


def lines_of(log: Path) -> list[str]:
    return b"".join(path.read_bytes() for path in files(log) if path.exists()).decode().splitlines()


def speak(log: Path, program: str) -> None:
    with running("speaker", [sys.executable, "-c", program], log=log) as process:
        assert process.finish() == 0


def test_no_line_is_lost_or_divided_by_rotation(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    speak(log, "for number in range(2500): print('line', number, flush=number % 7 == 0)")
    assert len(files(log)) > 2
    assert lines_of(log) == [f"line {number}" for number in range(2500)]
    assert all(path.read_bytes().endswith(b"\n") for path in files(log) if path.exists())


def test_a_flood_of_lines_is_bounded_on_disk(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    speak(log, "for number in range(100_000): print('line', number)")
    assert len(files(log)) == OLD_FILES + 1
    assert sum(path.stat().st_size for path in files(log) if path.exists()) <= (OLD_FILES + 1) * (LIMIT + CHUNK)
    assert lines_of(log)[-1] == "line 99999"


def test_a_line_without_an_end_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    speak(log, "import sys; sys.stdout.write('x' * 200_000)")
    assert sum(path.stat().st_size for path in files(log) if path.exists()) < (OLD_FILES + 1) * (2 * LIMIT + CHUNK)


def test_a_restarted_process_writes_to_the_same_file(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    for number in range(3):
        speak(log, f"print({number})")
    assert log.read_text() == "0\n1\n2\n"


def test_a_log_is_private_to_its_user(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    speak(log, "for number in range(3000): print('line', number)")
    assert {path.stat().st_mode & 0o777 for path in files(log) if path.exists()} == {0o600}
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_was_moved_is_created_again(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    source, sink = os.pipe()
    pump = Pump(source, log)
    os.write(sink, b"first\n")
    while not (log.exists() and log.stat().st_size):
        pass
    log.rename(tmp_path / "taken")
    os.write(sink, b"second\n")
    os.close(sink)
    pump.drain()
    assert (tmp_path / "taken").read_text() == "first\n"
    assert log.read_text() == "second\n"


def test_a_link_planted_by_a_part_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    (tmp_path / "server.log").symlink_to(elsewhere)
    with pytest.raises(CannotStart, match="cannot start speaker"):
        speak(tmp_path / "server.log", "print('planted')")
    assert elsewhere.read_text() == ""


def test_a_full_disk_stops_no_process_and_is_logged_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "server.log"
    is_full = threading.Event()
    has_failed = threading.Event()
    written = logs._write

    def write(path: Path, data: bytes) -> None:
        if is_full.is_set():
            has_failed.set()
            raise OSError(28, "No space left on device")
        written(path, data)

    monkeypatch.setattr(logs, "_write", write)
    source, sink = os.pipe()
    pump = Pump(source, log)
    is_full.set()
    os.write(sink, b"lost\n")
    assert has_failed.wait(5)
    is_full.clear()
    os.write(sink, b"kept\n")
    os.close(sink)
    pump.drain()
    assert log.read_text() == "[5 bytes could not be written]\nkept\n"
