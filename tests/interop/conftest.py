"""Unmodified clients of others, each in an environment of its own, against Envoy, uploads and a scripted server.

With DALSTON_INTEROP_URL (and DALSTON_API_KEY) they use a running service with a model instead.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stack.settings import ROOT
from tests.integration.uploads.front import front_of
from tests.integration.uploads.scripted_server import KEY

CACHE = ROOT / "build" / "interop"
INSTALL_SECONDS = 300
CLIENT_SECONDS = 300
SAMPLE = next(iter(sorted((ROOT / "samples").glob("*.flac"))))


@dataclass(frozen=True)
class Target:
    """The service under test."""

    url: str
    key: str
    file: Path
    text: str | None
    """The transcript of the file; None where a model decides."""


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if url := os.environ.get("DALSTON_INTEROP_URL"):
        yield Target(f"{url}/v1", os.environ.get("DALSTON_API_KEY", "none"), SAMPLE, None)
        return
    folder = tmp_path_factory.mktemp("interop")
    with front_of(folder) as front:
        yield Target(f"{front.url}/v1", KEY, SAMPLE, "Hello there. Good bye!")


def python_with(requirement: str) -> Path:
    """The interpreter of an environment that has this package and what it needs; it is made once."""
    folder = CACHE / requirement.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _install([sys.executable, "-m", "venv", str(folder)], requirement)
        _install([str(python), "-m", "pip", "install", "--quiet", requirement], requirement)
        (folder / "complete").touch()
    return python


def node_with(folder: Path) -> Path:
    """A copy of a folder with what its package.json names; it is made once for each version of the file."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    copy = CACHE / folder.name
    marker = copy / "complete"
    wanted = (folder / "package.json").read_text()
    if not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        _install(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(copy)], "the packages of npm")
        marker.write_text(wanted)
    for script in folder.glob("*.mjs"):
        shutil.copy(script, copy)
    return copy


def _install(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} cannot be installed: no answer")
    if done.returncode != 0:
        pytest.skip(f"{what} cannot be installed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


def run_client(title: str, command: Sequence[str]) -> dict[str, Any]:
    """What a client printed; each of its steps is shown."""
    # The proxy settings of a machine are not for loopback.
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False, env=env)
    print(f"\n--- {title}\n{done.stderr}")
    assert done.returncode == 0
    results: dict[str, Any] = json.loads(done.stdout)
    return results
