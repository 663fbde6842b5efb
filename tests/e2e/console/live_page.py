"""The microphone page in Chromium whose microphone plays a recording: what it captures, sends and shows."""

import base64
import io
import os
import signal
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import CHROMIUM, Complaints

# A failed connection is reported by the browser itself; a page cannot prevent that.
FAILED_CONNECTIONS = ("WebSocket connection to 'ws://", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE")
TIMEOUT_MS = 120_000
"""Milliseconds in which a busy machine recognises what was spoken."""

# The page is not asked what it has captured: its chunks are seen as they come from the audio thread, and its records as
# the browser has stored them.
_LISTEN = """(() => {
  const text = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)));
  const Node = globalThis.AudioWorkletNode;
  if (Node) globalThis.AudioWorkletNode = class extends Node {
    constructor(...args) {
      super(...args);
      this.port.addEventListener("message", ({ data }) => captured(text(data.pcm)));
    }
  };
  const put = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = function (value, key) {
    if (this.name === "audio") this.transaction.addEventListener("complete", () => stored(key[1] + value.length));
    return put.call(this, value, key);
  };
})()"""


def write_speech(sample: Sample, path: Path) -> Path:
    """Writes the sample recording as a file that a microphone can play."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample.rate)
        file.writeframes(sample.pcm.tobytes())
    return path


@dataclass
class Live:
    """A visit of the microphone page."""

    page: Page
    captured: bytearray = field(default_factory=bytearray)
    """All samples of the microphone, in their order."""
    stored_bytes: int = 0
    """How many of them the browser's database has confirmed."""

    async def start(self) -> None:
        await self.page.get_by_role("button", name="Start recording").click()
        await expect(self.page.get_by_role("button", name="Stop recording")).to_be_visible(timeout=TIMEOUT_MS)

    async def stop(self) -> None:
        await self.page.get_by_role("button", name="Stop recording").click()

    async def ended(self) -> list[str]:
        """Waits until all is stored. Returns the ids of the sessions, in their order."""
        note = self.page.locator("[data-name=ended]")
        await expect(note).to_contain_text("has stored it", timeout=TIMEOUT_MS)
        return (await note.get_attribute("data-sessions") or "").split()

    async def record(self, seconds: float) -> None:
        """Waits until so much is captured."""
        while len(self.captured) < seconds * 32_000:
            await self.page.wait_for_timeout(50)

    async def final(self, number: int) -> None:
        """Waits for the final of this number, from 1 on."""
        await self.page.locator("[role=log] .words").nth(number - 1).wait_for(timeout=TIMEOUT_MS)

    async def shows(self, text: str) -> None:
        await expect(self.page.get_by_role("region", name="Recorder")).to_contain_text(text, timeout=TIMEOUT_MS)

    async def lines(self) -> list[str]:
        return await self.page.locator("[role=log] .words").all_inner_texts()


@asynccontextmanager
async def browser(
    folder: Path, speech: Path | None, *arguments: str, permissions: bool = True
) -> AsyncIterator[BrowserContext]:
    """Chromium with its data in a folder, and a microphone that plays a file; None for no microphone."""
    fake = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={speech}%noloop"]
    allowed = ["--use-fake-ui-for-media-stream"] if permissions else []
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder,
            executable_path=CHROMIUM,
            args=["--no-sandbox", *(fake if speech else []), *allowed, *arguments],
            viewport={"width": 1280, "height": 800},
            locale="en-GB",
        )
        try:
            yield context
        finally:
            with suppress(Exception):  # It may have been killed.
                await context.close()


async def visit(context: BrowserContext, port: int, complaints: Complaints) -> Live:
    """Opens the page, at a port of localhost."""
    page = await context.new_page()
    complaints.listen(page)  # type: ignore[arg-type]
    live = Live(page)

    async def captured(text: str) -> None:
        live.captured += base64.b64decode(text)

    async def stored(end: int) -> None:
        live.stored_bytes = max(live.stored_bytes, end)

    await page.expose_function("captured", captured)
    await page.expose_function("stored", stored)
    await page.add_init_script(_LISTEN)
    await page.goto(f"http://localhost:{port}/console/live.html")
    return live


def processes(folder: Path) -> list[int]:
    """The processes of the browser whose data is in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"--user-data-dir={folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def send_signal(folder: Path, number: signal.Signals) -> None:
    """Sends a signal to the whole browser."""
    for pid in processes(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def recording(rest: httpx.AsyncClient, sessions: list[str]) -> bytes:
    """The samples of a recording that one or more sessions have."""
    answer = await rest.get(f"/v1/realtime/sessions/{sessions[-1]}/audio?linked=true")
    assert answer.status_code == 200, answer.text
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return file.readframes(file.getnframes())


async def transcript(rest: httpx.AsyncClient, sessions: list[str]) -> list[str]:
    """The stored finals of a recording."""
    answer = await rest.get(f"/v1/realtime/sessions/{sessions[-1]}/transcript?linked=true")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return [each["text"] for each in body.get("utterances", [])]
