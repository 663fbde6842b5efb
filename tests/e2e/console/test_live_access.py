"""The microphone page for people who do not see it, use no pointer, or see it enlarged."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import CHROMIUM, SCHEMES, SHOTS, Complaints
from tests.e2e.console.live_page import TIMEOUT_MS, Live, browser, visit, write_speech

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
    pytest.mark.timeout(300),
]


@pytest.fixture
async def live(stack: Stack, sample: Sample, complaints: Complaints, tmp_path: Path) -> AsyncIterator[Live]:
    speech = write_speech(sample, tmp_path / "speech.wav")
    async with browser(tmp_path / "browser", speech) as context:
        live = await visit(context, stack.port, complaints)
        live.page.on("dialog", lambda dialog: dialog.accept())
        yield live


async def is_accessible(page: Page, name: str) -> None:
    """Runs axe and looks for overflow in both schemes, wide and narrow, and takes pictures where they are wanted."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        for width in (1280, 320):
            await page.set_viewport_size({"width": width, "height": 800})
            found = await axe.run(page, options={"runOnly": {"type": "tag", "values": tags}})
            assert [(each["id"], each["nodes"]) for each in found.response["violations"]] == []
            wide, seen = await page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert wide == seen
            if SHOTS:
                path = Path(SHOTS) / f"live-{name}-{scheme}-{width}.png"
                await page.screenshot(path=path, full_page=width == 320)
    await page.set_viewport_size({"width": 1280, "height": 800})


async def test_axe_finds_nothing_before_while_and_after_a_recording_and_after_a_reload(live: Live) -> None:
    page = live.page
    await live.shows("Ready")
    await is_accessible(page, "ready")
    await live.start()
    await live.final(1)
    await is_accessible(page, "recording")
    await page.context.set_offline(True)
    await live.page.evaluate("dispatchEvent(new Event('offline'))")
    await live.stop()
    await page.context.set_offline(False)
    await live.ended()
    await is_accessible(page, "ended")
    await live.start()
    await live.record(len(live.captured) / 32_000 + 2)
    await page.reload()
    await page.get_by_role("button", name="Finish it").wait_for()
    await is_accessible(page, "found")


async def test_the_keyboard_starts_and_stops_and_finals_are_announced_and_partials_are_not(live: Live) -> None:
    page = live.page
    await expect(page.get_by_role("button", name="Start recording")).to_be_enabled()
    await page.keyboard.press("r")
    await expect(page.get_by_role("button", name="Stop recording")).to_be_visible(timeout=TIMEOUT_MS)
    await live.shows("Recording")
    await expect(page.locator("[role=status].unseen")).to_contain_text("Recording")
    assert re.match(r"● \d+:\d\d · Dalston", await page.title())
    partial = page.locator(".line.partial")
    await partial.wait_for(timeout=TIMEOUT_MS)
    assert await partial.get_attribute("aria-hidden") == "true"
    assert await page.get_by_role("log").locator(".partial").count() == 0
    await live.final(1)
    meter = page.get_by_role("meter", name="Level")
    assert 0 <= int(await meter.get_attribute("aria-valuenow") or -1) <= 100
    await page.keyboard.press("r")
    await live.ended()


async def test_choices_last_and_are_what_the_session_is_made_with(live: Live, stack: Stack) -> None:
    page = live.page
    await page.get_by_label("Language").select_option("en")
    await page.get_by_label("Audio", exact=True).uncheck()
    await expect(page.get_by_label("Transcribe it again afterwards")).to_be_disabled()
    await page.reload()
    await expect(page.get_by_label("Audio", exact=True)).not_to_be_checked()
    await expect(page.get_by_label("Language")).to_have_value("en")
    async with page.expect_websocket() as opened:
        await live.start()
    url = (await opened.value).url
    assert "language=en" in url
    assert "store_transcript=true" in url
    assert "store_audio" not in url
    await expect(page.get_by_label("Language")).to_be_disabled()
    await live.record(2)
    await live.stop()
    sessions = await live.ended()
    answer = await page.request.get(f"{stack.base_url}/v1/realtime/sessions/{sessions[0]}")
    assert (await answer.json())["language"] == "en"
