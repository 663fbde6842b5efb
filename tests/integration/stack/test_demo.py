"""The demo on the real stack, with the first sentence of the sample."""

import io
import time
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from stack import demo
from stack.settings import ROOT
from stack.supervisor import Stack


def test_the_demo_shows_the_text_and_the_stored_session(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech, rate = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16", frames=8 * 16_000)
    soundfile.write(tmp_path / "first.flac", speech, rate)
    monkeypatch.setattr(demo, "_SAMPLE", tmp_path / "first.flac")
    shown = io.StringIO()
    demo.demo(stack, time.sleep, Console(file=shown, width=200))
    text = shown.getvalue()
    assert "John Dashwood had then leisure" in text
    assert "byte for byte what was sent" in text
    assert text.count("$ curl") == 4
    assert '"status": "completed"' in text
