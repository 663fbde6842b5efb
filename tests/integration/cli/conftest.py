"""Runs the command as a user does: in a separate process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile

from stack.settings import ROOT
from tests.integration.sdk.conftest import wav_of

SECONDS = 12

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path, url: str, **more: str) -> dict[str, str]:
    """An environment without the configuration of this machine, with `dalston` on the path."""
    path = os.pathsep.join((str(command_folder(home)), os.environ["PATH"]))
    modules = os.pathsep.join(each for each in sys.path if each)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DALSTON_")}
    return kept | {"PATH": path, "PYTHONPATH": modules, "XDG_CONFIG_HOME": str(home), "DALSTON_URL": url} | more


def command_folder(home: Path) -> Path:
    """A folder with the command of this checkout, whatever is installed."""
    folder = home / "bin"
    if not folder.exists():
        folder.mkdir()
        command = folder / "dalston"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m dalston.cli.main "$@"\n')
        command.chmod(0o755)
    return folder


def runner(env: dict[str, str], folder: Path) -> Run:
    """Runs the command. `transcribe` streams its files unless `live` is False."""

    def run(
        *arguments: str, stdin: str | None = None, live: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        streaming = ["--live"] if live and "transcribe" in arguments else []
        return subprocess.run(
            [f"{env['PATH'].partition(os.pathsep)[0]}/dalston", *arguments, *streaming],
            env=env | more,
            cwd=folder,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_received() -> Iterator[None]:
    """Restores the handling of Ctrl-C, which a background job of a shell ignores and its children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `speech.wav`, and the same without a header, `speech.raw`."""
    samples, rate = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16")
    pcm = samples[: SECONDS * rate].tobytes()
    folder = tmp_path_factory.mktemp("cli")
    (folder / "speech.wav").write_bytes(wav_of(pcm))
    (folder / "speech.raw").write_bytes(pcm)
    return folder
