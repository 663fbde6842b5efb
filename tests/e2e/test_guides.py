"""The programs of the guides run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import google.api
import pytest

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.words import word_error_rate

NODE = shutil.which("node")
NPM = shutil.which("npm")


def program(guide: str, language: str) -> str:
    """The first program in a language that a guide has."""
    text = (ROOT / "docs" / guide).read_text()
    return str(re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0])


def said(output: str) -> str:
    """The finals that a program printed, behind the line with the session's id."""
    session_id, *lines = output.splitlines()
    assert re.fullmatch(r"sess_[0-9a-f]{32}", session_id)
    return " ".join(line.strip().split(maxsplit=1)[1] for line in lines)


@pytest.mark.timeout(120)
def test_the_python_program_of_the_websocket_guide(stack: Stack, sample: Sample, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample.rate)
        file.writeframes(sample.pcm.tobytes())
    text = program("websocket.md", "python").replace("ws://localhost:8000", stack.ws_url)
    # As the guide says: a recording may be sent without it.
    text = text.replace("        await asyncio.sleep(0.1)\n", "").replace(
        "compression=None", "compression=None, proxy=None"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "speech.wav"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert word_error_rate(sample.text, said(done.stdout)) < 0.05


@pytest.mark.skipif(NODE is None or NPM is None, reason="Node.js is not installed here")
@pytest.mark.timeout(180)
def test_the_node_program_of_the_grpc_guide(stack: Stack, sample: Sample, tmp_path: Path) -> None:
    assert NODE is not None
    assert NPM is not None
    install = [NPM, "install", "--no-fund", "--no-audit", "@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1"]
    if subprocess.run(install, cwd=tmp_path, capture_output=True, timeout=100).returncode:
        pytest.skip("npm cannot install packages here")
    (tmp_path / "speech.raw").write_bytes(sample.pcm.tobytes())
    text = program("grpc.md", "js").replace("localhost:8000", stack.base_url.removeprefix("http://"))
    (tmp_path / "client.js").write_text(text)
    environment = {
        **os.environ,
        "DALSTON_PROTOS": str(ROOT / "proto"),
        "GOOGLE_PROTOS": str(Path(next(iter(google.api.__path__))).parent.parent),
    }
    done = subprocess.run(
        [NODE, "client.js", "speech.raw"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert word_error_rate(sample.text, said(done.stdout)) < 0.05
