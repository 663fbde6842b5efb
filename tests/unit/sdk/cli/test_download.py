from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self, cast

import pytest
from dalston import Client
from dalston.cli.download import Download, _locked
from dalston.cli.exits import CommandError
from dalston.errors import DalstonError, InvalidRequest, NotFound, Unavailable

ID = "sess_" + "a" * 32
FILE = bytes(range(256)) * 40


class Recording:
    """A client, its `sessions` and the audio in one: a file whose downloads break after some bytes.

    Args:
        after: bytes of each response; later responses are complete.
    """

    def __init__(self, *after: int, file: bytes = FILE, error: DalstonError | None = None) -> None:
        self.sessions = self
        self.offsets: list[int] = []
        self.size: int | None = None
        self._file = file
        self._after = list(after)
        self._error = error

    def audio(self, session_id: str, *, linked: bool, start: int = 0) -> Self:
        assert (session_id, linked) == (ID, False)
        self.offsets.append(start)
        return self

    def __iter__(self) -> Iterator[bytes]:
        if self._error:
            raise self._error
        first, size = self.offsets[-1], len(self._file)
        if first >= size:
            raise InvalidRequest("no such bytes", reason="INVALID_RANGE")
        until = first + self._after.pop(0) if self._after else size
        for start in range(first, until, 1000):
            self.size = size
            yield self._file[start : min(start + 1000, until)]
        if until < size:
            raise Unavailable("broken")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fetch(recording: Recording, target: Path) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    download = Download(ID, target, linked=False, progress=lambda done, total: seen.append((done, total)))
    assert download.run(cast(Client, recording)) == target.stat().st_size
    return seen


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The target of a download that broke after 3000 bytes."""
    target = tmp_path / "a.wav"
    with pytest.raises(Unavailable):
        fetch(Recording(3000), target)
    assert names(tmp_path) == [f".a.wav.{ID}.alone.{len(FILE)}.part"]
    return target


def test_download_reports_progress(tmp_path: Path) -> None:
    seen = fetch(Recording(), tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_bytes() == FILE
    assert (seen[0], seen[-1]) == ((1000, len(FILE)), (len(FILE), len(FILE)))
    assert names(tmp_path) == ["a.wav"]


def test_same_command_resumes_an_interrupted_download(broken: Path) -> None:
    recording = Recording()
    fetch(recording, broken)
    assert (broken.read_bytes(), recording.offsets) == (FILE, [3000])


@pytest.mark.parametrize("file", [FILE[::-1] + b"more", FILE[:2000]], ids=["longer", "shorter"])
def test_changed_recording_is_downloaded_from_the_start(broken: Path, file: bytes) -> None:
    recording = Recording(file=file)
    fetch(recording, broken)
    assert (broken.read_bytes(), recording.offsets) == (file, [3000, 0])
    assert names(broken.parent) == ["a.wav"]


def test_download_without_stored_audio_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        fetch(Recording(error=NotFound("no audio")), tmp_path / "a.wav")
    assert names(tmp_path) == []


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with _locked(tmp_path / "a"), pytest.raises(CommandError, match="another process"), _locked(tmp_path / "a"):
        pass
