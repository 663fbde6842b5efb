"""The microphone page where something is in its way: the microphone, its permission, the browser's storage, a login."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import BrowserContext, expect

from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import CHROMIUM, Complaints
from tests.e2e.console.live_page import (
    Live,
    browser,
    recording,
    visit,
    write_speech,
)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def speech(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(sample, tmp_path_factory.mktemp("speech") / "speech.wav")


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=20, trust_env=False) as client:
        yield client


async def is_explained(live: Live, text: str, what_to_do: str) -> None:
    await expect(live.page.get_by_role("main")).to_contain_text(text)
    await expect(live.page.get_by_role("main")).to_contain_text(what_to_do)


async def is_explained_at_once(live: Live, text: str, what_to_do: str) -> None:
    await is_explained(live, text, what_to_do)
    await expect(live.page.get_by_role("button", name="Start recording")).to_be_disabled()


async def test_a_machine_without_microphone_is_explained(stack: Stack, complaints: Complaints, tmp_path: Path) -> None:
    async with browser(tmp_path, None) as context:
        live = await visit(context, stack.port, complaints)
        await is_explained_at_once(live, "There is no microphone", "Connect one")


async def test_a_page_that_is_not_secure_is_explained(stack: Stack, complaints: Complaints, tmp_path: Path) -> None:
    async def serve(route: Any) -> None:
        path = route.request.url.partition("console.example")[2]
        await route.fulfill(response=await route.fetch(url=f"{stack.base_url}{path}"))

    complaints.expect("Cross-Origin-Opener-Policy header has been ignored")
    async with browser(tmp_path, None) as context:
        page = await context.new_page()
        complaints.listen(page)  # type: ignore[arg-type]
        await page.route("http://console.example/**", serve)
        await page.goto("http://console.example/console/live.html")
        await is_explained_at_once(Live(page), "secure pages only", "https://")


async def deny(context: BrowserContext) -> None:
    session = await context.new_cdp_session(context.pages[0])
    await session.send("Browser.setPermission", {"permission": {"name": "microphone"}, "setting": "denied"})


async def test_a_denied_permission_is_explained_at_once_and_noticed_when_it_is_given(
    stack: Stack, speech: Path, complaints: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech, permissions=False) as context:
        await deny(context)
        live = await visit(context, stack.port, complaints)
        await is_explained_at_once(live, "may not use the microphone", "press the sign beside the address")
        await context.grant_permissions(["microphone"])
        await expect(live.page.get_by_role("button", name="Start recording")).to_be_enabled()
        await expect(live.page.get_by_text("may not use the microphone")).to_have_count(0)


@pytest.mark.parametrize(
    ("error", "text", "what_to_do"),
    [
        ("NotAllowedError", "may not use the microphone", "Allow it"),
        ("NotReadableError", "used by another program", "End the call"),
        ("NotFoundError", "There is no microphone", "Connect one"),
    ],
)
async def test_a_refusal_of_the_browser_is_explained(
    stack: Stack, speech: Path, complaints: Complaints, tmp_path: Path, error: str, text: str, what_to_do: str
) -> None:
    async with browser(tmp_path, speech) as context:
        await context.add_init_script(
            f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{error}'); }}"
        )
        live = await visit(context, stack.port, complaints)
        await live.page.get_by_role("button", name="Start recording").click()
        await is_explained(live, text, what_to_do)
        await expect(live.page.get_by_role("button", name="Start recording")).to_be_enabled()


async def test_a_browser_that_stores_nothing_records_all_the_same_and_warns_once(
    stack: Stack, speech: Path, http: httpx.AsyncClient, complaints: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech) as context:
        await context.add_init_script(
            "IDBFactory.prototype.open = () => { throw new DOMException('', 'SecurityError'); }"
        )
        live = await visit(context, stack.port, complaints)
        await live.start()
        await expect(live.page.get_by_text("This browser stores nothing for this page.")).to_have_count(1)
        await live.record(3)
        await live.stop()
        assert await recording(http, await live.ended()) == bytes(live.captured)


async def test_a_full_disk_in_mid_recording_loses_nothing_while_the_page_is_open(
    stack: Stack, speech: Path, http: httpx.AsyncClient, complaints: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech) as context:
        live = await visit(context, stack.port, complaints)
        await live.start()
        await live.record(2)
        await live.page.evaluate(
            """() => {
              IDBObjectStore.prototype.put = () => { throw new DOMException("", "QuotaExceededError"); };
            }"""
        )
        await expect(live.page.get_by_text("This browser stores nothing for this page.")).to_have_count(1)
        await live.record(4)
        await live.stop()
        assert await recording(http, await live.ended()) == bytes(live.captured)


# Keeps the track, so that a test can do to it what a system does.
_TRACK = """(() => {
  const original = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = async function (constraints) {
    if (globalThis.unplugged) throw new DOMException("", "OverconstrainedError");
    const stream = await original.call(this, constraints);
    [globalThis.track] = stream.getAudioTracks();
    return stream;
  };
})()"""


async def test_a_microphone_that_is_gone_leaves_silence_and_is_taken_again(
    stack: Stack, speech: Path, http: httpx.AsyncClient, complaints: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech) as context:
        await context.add_init_script(_TRACK)
        live = await visit(context, stack.port, complaints)
        await live.start()
        await live.record(3)
        await live.page.evaluate("unplugged = true; track.stop(); track.dispatchEvent(new Event('ended'))")
        await live.shows("Microphone gone")
        await expect(live.page.get_by_role("log")).to_contain_text("silence takes its place")
        gone = len(live.captured) / 32_000
        await live.record(gone + 2)
        assert not any(live.captured[-32_000:])
        await live.page.evaluate("unplugged = false")
        await live.shows("Recording")
        await live.record(len(live.captured) / 32_000 + 1)
        await live.stop()
        assert await recording(http, await live.ended()) == bytes(live.captured)


async def test_a_muted_microphone_is_named_after_three_seconds(
    stack: Stack, speech: Path, complaints: Complaints, tmp_path: Path
) -> None:
    async with browser(tmp_path, speech) as context:
        await context.add_init_script(_TRACK)
        live = await visit(context, stack.port, complaints)
        await live.start()
        await live.page.evaluate("track.dispatchEvent(new Event('mute'))")
        await live.shows("Microphone muted")
        await live.page.evaluate("track.dispatchEvent(new Event('unmute'))")
        await live.shows("Recording")
        await live.stop()
        await live.ended()
