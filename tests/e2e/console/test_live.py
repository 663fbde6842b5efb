"""The microphone page: what was captured is stored byte for byte, whatever fails: connection, page, browser, server."""

import asyncio
import os
import signal
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import expect
from websockets.asyncio.client import connect

from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import CHROMIUM, Complaints
from tests.e2e.console.live_page import (
    FAILED_CONNECTIONS,
    TIMEOUT_MS,
    browser,
    recording,
    send_signal,
    transcript,
    visit,
    write_speech,
)
from tests.faults.proxy import Proxy
from tests.words import word_error_rate

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def speech(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(sample, tmp_path_factory.mktemp("speech") / "speech.wav")


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def failing(complaints: Complaints) -> Iterator[Complaints]:
    """For tests in which connections fail."""
    for text in FAILED_CONNECTIONS:
        complaints.expect(text)
    return complaints


async def test_a_recording_is_stored_and_shown_as_it_was_captured_over_cut_connections(
    stack: Stack, sample: Sample, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    async with Proxy("127.0.0.1", stack.port) as proxy, browser(tmp_path, speech) as context:
        live = await visit(context, proxy.port, failing)
        await live.start()
        # A short cut, one in mid-word, one of seconds, and one while the rest is sent.
        await live.final(1)
        proxy.cut()
        await live.record(12)
        for seconds in (0.2, 2.5, 8):
            proxy.refuse()
            await live.shows("Nothing is lost")
            await asyncio.sleep(seconds)
            proxy.restore()
            await live.shows("Recording")
            await live.record(len(live.captured) / 32_000 + 3)
        await live.record(sample.seconds)
        proxy.cut()
        await live.stop()
        sessions = await live.ended()
        assert len(sessions) >= 4
        await expect(live.page.get_by_role("link", name="Open the recording")).to_have_attribute(
            "href", f"session.html?id={sessions[-1]}"
        )
        assert await recording(http, sessions) == bytes(live.captured)
        lines = await live.lines()
        assert lines == await transcript(http, sessions)
        assert word_error_rate(sample.text, " ".join(lines)) <= 0.15
        # The browser keeps nothing that the server has stored.
        assert await live.page.evaluate("indexedDB.databases().then((all) => all.length)") == 1
        await live.page.reload()
        await live.shows("Ready")
        assert await live.page.locator("[data-name]").count() == 0


async def test_a_page_that_was_reloaded_finishes_its_recording(
    stack: Stack, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    async with Proxy("127.0.0.1", stack.port) as proxy, browser(tmp_path, speech) as context:
        live = await visit(context, proxy.port, failing)
        await live.start()
        await live.final(1)
        proxy.refuse()
        await live.shows("Nothing is lost")
        await live.record(len(live.captured) / 32_000 + 3)
        asked: list[str] = []

        async def leave(dialog) -> None:  # type: ignore[no-untyped-def]
            asked.append(dialog.type)
            await dialog.accept()

        live.page.on("dialog", leave)
        proxy.restore()
        await live.page.reload()
        assert asked == ["beforeunload"]
        note = live.page.get_by_text("was not finished")
        await note.wait_for()
        await expect(live.page.get_by_role("main")).to_contain_text("are kept here and not sent yet")
        stored = live.stored_bytes
        await live.page.get_by_role("button", name="Finish it").click()
        sessions = await live.ended()
        found = await recording(http, sessions)
        # The audio thread may have captured one more chunk while the page went away.
        assert bytes(live.captured).startswith(found)
        assert len(found) >= stored > 0
        assert await live.lines() == await transcript(http, sessions)


async def test_a_killed_browser_loses_nothing_that_its_database_has(
    stack: Stack, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    async with Proxy("127.0.0.1", stack.port) as proxy:
        async with browser(tmp_path, speech) as context:
            live = await visit(context, proxy.port, failing)
            await live.start()
            await live.final(1)
            # The last seconds are in the browser only.
            proxy.refuse()
            await live.record(len(live.captured) / 32_000 + 4)
            stored, captured = live.stored_bytes, live.captured
            send_signal(tmp_path, signal.SIGKILL)
        proxy.restore()
        failing.expect("crashed")
        async with browser(tmp_path, speech) as context:
            live = await visit(context, proxy.port, failing)
            await live.page.get_by_role("button", name="Finish it").click()
            sessions = await live.ended()
            found = await recording(http, sessions)
            assert len(found) >= stored > 0
            # What the browser had stored and not yet reported may be more than the test has seen.
            assert found[: len(captured)] == bytes(captured)[: len(found)]
            assert await live.lines() == await transcript(http, sessions)


async def test_a_recording_goes_on_after_a_reload_and_over_a_killed_server(
    stack: Stack, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    failing.expect("status of 503")
    async with browser(tmp_path, speech) as context:
        live = await visit(context, stack.port, failing)
        live.page.on("dialog", lambda dialog: dialog.accept())
        await live.start()
        await live.record(4)
        await live.page.reload()
        await live.page.get_by_role("button", name="Continue recording").click()
        await live.shows("Recording")
        await live.record(len(live.captured) / 32_000 + 2)
        server = next(each for each in stack.processes if each.name == "server")
        os.kill(server.popen.pid, signal.SIGKILL)
        await live.shows("Nothing is lost")
        while True:
            stack.check()
            if (await http.get("/health")).status_code == 200:
                break
            await asyncio.sleep(0.2)
        await live.shows("Recording")
        await live.stop()
        sessions = await live.ended()
        found = await recording(http, sessions)
        assert abs(len(found) - len(live.captured)) <= 6400  # chunks around the reload
        await expect(live.page.get_by_role("log")).to_contain_text("the page was closed")
        assert await live.lines() == await transcript(http, sessions)


async def test_two_tabs_record_at_once_and_each_its_own(
    stack: Stack, speech: Path, http: httpx.AsyncClient, complaints: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech) as context:
        tabs = [await visit(context, stack.port, complaints) for _ in range(2)]
        for live in tabs:
            await live.start()
        # Neither offers what the other one is busy with.
        third = await visit(context, stack.port, complaints)
        await third.shows("Ready")
        await expect(third.page.get_by_text("was not finished")).to_have_count(0)
        for live in tabs:
            await live.record(8)
            await live.stop()
        for live in tabs:
            sessions = await live.ended()
            assert len(sessions) == 1
            assert await recording(http, sessions) == bytes(live.captured)
            assert await live.lines() == await transcript(http, sessions)


async def test_a_silent_connection_is_replaced_and_a_device_without_network_is_recognised(
    stack: Stack, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    failing.expect("net::ERR_INTERNET_DISCONNECTED")
    async with Proxy("127.0.0.1", stack.port) as proxy, browser(tmp_path, speech) as context:
        live = await visit(context, proxy.port, failing)
        await live.start()
        await live.final(1)
        # Half of the connection is dead: neither side is notified.
        proxy.stall()
        before = len(live.captured) / 32_000
        await live.shows("The server has not answered for 20 seconds")
        assert len(live.captured) / 32_000 >= before + 12
        proxy.restore()
        await live.shows("Recording")
        await context.set_offline(True)
        proxy.cut()
        await live.shows("This device is offline")
        await live.record(len(live.captured) / 32_000 + 1)
        await context.set_offline(False)
        await live.shows("Recording")
        await live.stop()
        sessions = await live.ended()
        assert await recording(http, sessions) == bytes(live.captured)
        assert await live.lines() == await transcript(http, sessions)


async def test_a_recording_that_is_ended_or_continued_elsewhere_stops_and_keeps_what_is_here(
    stack: Stack, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    async with Proxy("127.0.0.1", stack.port) as proxy, browser(tmp_path, speech) as context:
        live = await visit(context, proxy.port, failing)
        await live.start()
        await live.record(2)
        session = await live.page.get_by_role("region", name="Recorder").get_attribute("data-session")
        assert (await http.post(f"/v1/realtime/sessions/{session}/end", json={})).status_code == 200
        main = live.page.get_by_role("main")
        await expect(main).to_contain_text("Somebody has ended this session", timeout=TIMEOUT_MS)
        async with live.page.expect_download() as downloading:
            await live.page.get_by_role("button", name="Save as WAV").click()
        with wave.open(str(await (await downloading.value).path())) as file:
            assert file.readframes(file.getnframes()) == bytes(live.captured)
        await live.page.get_by_role("button", name="Discard it").click()

        await live.start()
        await live.record(len(live.captured) / 32_000 + 2)
        session = await live.page.get_by_role("region", name="Recorder").get_attribute("data-session")
        proxy.refuse()
        await live.shows("Nothing is lost")
        query = f"store_audio=true&store_transcript=true&resume_session_id={session}"
        async with connect(f"{stack.ws_url}/v1/audio/transcriptions/stream?{query}", proxy=None) as socket:
            assert '"session.begin"' in str(await socket.recv())
            await socket.send(bytes(3200))
            await socket.send('{"type":"end"}')
            async for _ in socket:
                pass
        proxy.restore()
        await expect(main).to_contain_text("Another page continues this recording", timeout=TIMEOUT_MS)
        await expect(live.page.get_by_role("button", name="Save as WAV")).to_be_visible()


async def test_a_computer_that_slept_leaves_a_mark(
    stack: Stack, speech: Path, http: httpx.AsyncClient, failing: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech) as context:
        live = await visit(context, stack.port, failing)
        await live.start()
        await live.record(3)
        send_signal(tmp_path, signal.SIGSTOP)
        await asyncio.sleep(5)
        send_signal(tmp_path, signal.SIGCONT)
        await expect(live.page.get_by_role("log")).to_contain_text("the computer slept", timeout=TIMEOUT_MS)
        await live.record(len(live.captured) / 32_000 + 1)
        await live.stop()
        sessions = await live.ended()
        assert await recording(http, sessions) == bytes(live.captured)
