"""Recorded sessions for the pages that show one, made by the real stack from real speech."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
from playwright.sync_api import Page
from websockets.sync.client import ClientConnection, connect

from domain.session_id import parse_session_id
from domain.transcript import TimedWord, Utterance
from stack.supervisor import Stack
from tests.e2e.conftest import PATH, chunks
from tests.versions import VersionWriter, versions_of

SESSIONS = "/v1/realtime/sessions"
STORED = {"store_audio": "true", "store_transcript": "true", "word_timestamps": "true", "language": "en"}
RATE = 16_000
STORED_SECONDS = 30
_CURRENT_TIME = "document.querySelector('audio').currentTime"

Samples = np.ndarray[Any, Any]


@contextmanager
def streaming(stack: Stack, **parameters: str) -> Iterator[tuple[ClientConnection, str]]:
    """An open session and its id."""
    url = f"{stack.ws_url}{PATH}?{urlencode(STORED | parameters)}"
    with connect(url, proxy=None, max_size=None, open_timeout=30, ping_timeout=None) as socket:
        yield socket, json.loads(socket.recv())["session_id"]


def send(socket: ClientConnection, samples: Samples) -> None:
    for chunk in chunks(samples.tobytes()):
        socket.send(chunk)


def record(stack: Stack, rest: httpx.Client, samples: Samples, *, ends: bool = True, **parameters: str) -> str:
    """Streams a session and waits until it is stored; one that does not end is cut off. Returns its id."""
    with streaming(stack, **parameters) as (socket, session_id):
        send(socket, samples)
        if ends:
            socket.send('{"type":"end"}')
            for _ in socket:
                pass
    wait_until(lambda: rest.get(f"{SESSIONS}/{session_id}").json()["status"] != "active")
    if "true" in (STORED | parameters)["store_transcript"]:
        wait_until(lambda: rest.get(f"{SESSIONS}/{session_id}/transcript").status_code == 200)
    return session_id


def wait_until(is_so: Callable[[], bool], seconds: float = STORED_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def apart(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs asynchronous work in a thread of its own: Playwright's event loop occupies this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(work())).result()


def add_version(stack: Stack, session_id: str, version: int, utterances: Sequence[Utterance], **more: Any) -> None:
    """Stores a version of a transcript as a worker does."""

    async def add() -> None:
        async with versions_of(stack) as writer:
            await _add(writer)

    async def _add(writer: VersionWriter) -> None:
        await writer.version(parse_session_id(session_id), version, utterances, **more)

    apart(add)


def utterance(start: float, text: str, *, seconds_each: float = 0.4, confidence: float = 0.9, **more: Any) -> Utterance:
    """An utterance whose words follow one another."""
    words = tuple(
        TimedWord(word, round(start + at * seconds_each, 3), round(start + (at + 1) * seconds_each, 3), confidence)
        for at, word in enumerate(text.split())
    )
    return Utterance(start, words[-1].end, text, confidence, more.pop("language", "en"), words=words, **more)


def current_time(page: Page) -> float:
    """Where the page's audio is, in seconds."""
    return float(page.evaluate(_CURRENT_TIME))


def seeks(page: Page) -> list[float]:
    """Where the audio has been sought to since `note_seeks`."""
    return list(page.evaluate("globalThis.seeks"))


def wait_for_seek(page: Page, earliest: float, latest: float) -> None:
    """Waits until the last seek is between two times."""
    wait_until(lambda: earliest <= (seeks(page) or [-1.0])[-1] <= latest)


def note_seeks(page: Page) -> None:
    """Notes where the audio is sought to: while it plays on, its position alone does not show it."""
    page.evaluate(
        """() => {
            globalThis.seeks = [];
            const audio = document.querySelector("audio");
            audio.addEventListener("seeking", () => globalThis.seeks.push(audio.currentTime));
        }"""
    )
