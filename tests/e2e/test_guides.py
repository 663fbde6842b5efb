"""The programs in the guides run unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import google.api
import pytest
from playwright.sync_api import expect, sync_playwright

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.guides import program
from tests.words import word_error_rate

NODE = shutil.which("node")
NPM = shutil.which("npm")
NODE_LOCK = Path(__file__).parent / "node"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def save(pcm: bytes, path: Path) -> None:
    """Writes mono 16 kHz audio as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves the files of a folder, and yields the origin for a browser on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Logs nothing: the browser reports errors."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def finals_in(output: str) -> str:
    """The finals that a program printed after the line with the session's id."""
    session_id, *lines = output.splitlines()
    assert re.fullmatch(r"sess_[0-9a-f]{32}", session_id)
    return " ".join(line.strip().split(maxsplit=1)[1] for line in lines)


@pytest.mark.timeout(120)
def test_the_python_program_of_the_websocket_guide(stack: Stack, sample: Sample, tmp_path: Path) -> None:
    save(sample.pcm.tobytes(), tmp_path / "speech.wav")
    text = program("websocket.md", "python").replace("ws://localhost:8000", stack.ws_url)
    # The guide allows it: a recording may be sent faster than real time.
    text = text.replace("        await asyncio.sleep(0.1)\n", "").replace(
        "compression=None", "compression=None, proxy=None"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "speech.wav"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert word_error_rate(sample.text, finals_in(done.stdout)) < 0.05


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")
@pytest.mark.timeout(120)
def test_the_page_of_the_websocket_guide_in_a_browser(stack: Stack, sample: Sample, tmp_path: Path) -> None:
    microphone = tmp_path / "speech.wav"
    save(sample.pcm[: 16_000 * 7].tobytes() + bytes(32_000 * 10), microphone)
    page_text = program("websocket.md", "html").replace("ws://localhost:8000", stack.ws_url)
    (tmp_path / "index.html").write_text(page_text)
    arguments = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        "--disable-background-networking",
    ]
    with served(tmp_path) as origin, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.goto(origin)
        page.evaluate(
            """window.partials = [];
            new MutationObserver(() => partials.push(document.getElementById("partial").textContent))
              .observe(document.getElementById("partial"), { childList: true });"""
        )
        page.click("#start")
        expect(page.locator("#text")).not_to_be_empty(timeout=60_000)
        partials = [text for text in page.evaluate("partials") if text]
        expect(page.locator("#partial")).to_be_empty()
        with page.expect_console_message(lambda message: message.text == "closed with 1000", timeout=30_000):
            page.click("#stop")
        shown = page.inner_text("#text")
        browser.close()
    assert partials
    # The noise suppression of the browser changes the audio.
    assert word_error_rate(sample.text.splitlines()[0], shown) < 0.25


@pytest.mark.skipif(NODE is None or NPM is None, reason="Node.js is not installed here")
@pytest.mark.timeout(180)
def test_the_node_program_of_the_grpc_guide(stack: Stack, sample: Sample, tmp_path: Path) -> None:
    assert NODE is not None
    assert NPM is not None
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE_LOCK / name, tmp_path)
    # With the hashes of the lock, and without the install scripts of the packages.
    install = [NPM, "ci", "--ignore-scripts", "--no-fund", "--no-audit"]
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
    assert word_error_rate(sample.text, finals_in(done.stdout)) < 0.05
