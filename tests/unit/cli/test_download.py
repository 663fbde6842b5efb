from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dalston.calls import Calls
from dalston.cli.download import Download, _alone
from dalston.cli.exits import CommandError
from dalston.errors import NotFound, Unavailable

ID = "sess_" + "a" * 32
FILE = bytes(range(256)) * 40


class BreakingCalls:
    """Serves a file, and breaks off after so many bytes each time.

    Args:
        after: bytes of each answer; what comes after the last is whole.
    """

    timeout = 2.0
    sessions = SimpleNamespace(GetAudio=None)

    def __init__(self, *after: int) -> None:
        self.file = FILE
        self.asked: list[int] = []
        self._after = list(after)

    async def stream(
        self, _method: object, _request: object, _silence: float, *more: tuple[str, str]
    ) -> AsyncGenerator[Any, None]:
        first = int(dict(more)["range"].removeprefix("bytes=").removesuffix("-")) if more else 0
        self.asked.append(first)
        size = len(self.file)
        span = {"content-range": f"bytes {first}-{size - 1}/{size}"} if more else {}
        yield {"x-content-length": str(size - first), **span}
        until = first + self._after.pop(0) if self._after else size
        for start in range(first, until, 1000):
            yield SimpleNamespace(data=self.file[start : min(start + 1000, until)])
        if until < size:
            raise Unavailable("broken")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def fetch(calls: BreakingCalls, target: Path) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    download = Download(ID, target, linked=False, progress=lambda done, total: seen.append((done, total)))
    await download.run(cast(Calls, calls))
    return seen


async def test_a_download_that_breaks_goes_on_where_it_was(tmp_path: Path) -> None:
    target, calls = tmp_path / "a.wav", BreakingCalls(2500, 1, 4000)
    seen = await fetch(calls, target)
    assert target.read_bytes() == FILE
    assert calls.asked == [0, 2500, 2501, 6501]
    assert seen[-1] == (len(FILE), len(FILE))
    assert names(tmp_path) == ["a.wav"]


async def test_what_is_here_is_kept_when_it_gets_no_further(tmp_path: Path) -> None:
    target, calls = tmp_path / "a.wav", BreakingCalls(3000, *[0] * 100)
    calls.timeout = 0.3
    with pytest.raises(Unavailable):
        await fetch(calls, target)
    assert not target.exists()
    again = BreakingCalls()
    await fetch(again, target)
    assert (target.read_bytes(), again.asked) == (FILE, [3000])


async def test_a_recording_that_has_changed_is_fetched_anew(tmp_path: Path) -> None:
    target, calls = tmp_path / "a.wav", BreakingCalls(3000, *[0] * 100)
    calls.timeout = 0.1
    with pytest.raises(Unavailable):
        await fetch(calls, target)
    again = BreakingCalls()
    again.file = FILE[::-1] + b"more"
    await fetch(again, target)
    assert (target.read_bytes(), again.asked) == (again.file, [3000, 0])


async def test_a_session_without_audio_leaves_nothing(tmp_path: Path) -> None:
    class Without(BreakingCalls):
        async def stream(self, *_: Any) -> AsyncGenerator[Any, None]:
            raise NotFound("no audio")
            yield

    with pytest.raises(NotFound):
        await fetch(Without(), tmp_path / "a.wav")
    assert names(tmp_path) == []


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with _alone(tmp_path / "a"), pytest.raises(CommandError, match="another process"), _alone(tmp_path / "a"):
        pass
