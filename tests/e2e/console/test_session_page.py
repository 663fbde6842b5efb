"""The page of one session: its record, player, text and downloads, with real recorded speech."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import Complaints, overflow, violations
from tests.e2e.console.recorded import (
    RATE,
    SESSIONS,
    add_version,
    current_time,
    note_seeks,
    record,
    send,
    streaming,
    utterance,
    wait_for_seek,
    wait_until,
)

pytestmark = pytest.mark.timeout(300)

PIECE_SECONDS = 12
WAVEFORM = re.compile(r"/waveform(\?|$)")
Shoot = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.base_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def spoken(stack: Stack, http: httpx.Client, sample: Sample) -> str:
    """A stored session of the first sentences, with times of the words."""
    return record(stack, http, sample.pcm[: PIECE_SECONDS * RATE])


@pytest.fixture(scope="module")
def resumed(stack: Stack, http: httpx.Client, sample: Sample) -> tuple[str, str]:
    """A session that was cut off, and the one that continues it."""
    cut = record(stack, http, sample.pcm[: PIECE_SECONDS * RATE], ends=False)
    return cut, record(stack, http, sample.pcm[PIECE_SECONDS * RATE :], resume_session_id=cut)


@pytest.fixture
def transcript(rest: httpx.Client, spoken: str) -> dict[str, Any]:
    return dict(rest.get(f"{SESSIONS}/{spoken}/transcript").json())


def visit(page: Page, session_id: str, more: str = "") -> None:
    page.goto(f"session.html?id={session_id}{more}")
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Session")


def is_ready_to_play(page: Page) -> None:
    wait_until(lambda: page.evaluate("document.querySelector('audio')?.readyState ?? 0") > 0)


def words_of(transcript: dict[str, Any]) -> list[dict[str, Any]]:
    return [word for each in transcript["utterances"] for word in each["words"]]


def test_a_click_on_a_word_plays_it_and_the_word_being_spoken_is_marked(
    page: Page, spoken: str, transcript: dict[str, Any], shoot: Shoot
) -> None:
    words = words_of(transcript)
    visit(page, spoken)
    spans = page.locator(".said > span")
    expect(spans).to_have_count(len(words))
    assert spans.all_inner_texts() == [word["word"] for word in words]
    is_ready_to_play(page)
    note_seeks(page)
    for at in (7, len(words) - 3):
        spans.nth(at).click()
        wait_for_seek(page, words[at]["start"] - 0.1, words[at]["start"] + 0.1)
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press("k")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    now = page.locator(".said > span.now")
    if now.count():
        at = page.evaluate("document.querySelector('.said > span.now').at")
        assert words[at]["start"] - 0.1 <= current_time(page) <= words[at]["end"] + 0.5
    for at in (3, 11):
        page.evaluate("time => { document.querySelector('audio').currentTime = time }", words[at]["start"] + 0.01)
        expect(now).to_have_text(words[at]["word"])
        expect(now).to_have_count(1)
    shoot(page, "session")


def test_the_words_are_one_stop_of_the_tab_key_and_arrows_lead_through_them(
    page: Page, spoken: str, transcript: dict[str, Any]
) -> None:
    words = words_of(transcript)
    visit(page, spoken)
    is_ready_to_play(page)
    note_seeks(page)
    stops = page.locator(".transcript [tabindex='0']")
    expect(stops).to_have_count(1)
    stops.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    focused = page.locator(".said > span:focus")
    expect(focused).to_have_text(words[1]["word"])
    expect(focused).to_have_role("button")
    page.keyboard.press("Enter")
    wait_for_seek(page, words[1]["start"] - 0.1, words[1]["start"] + 0.1)
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text(transcript["utterances"][1]["words"][0]["word"])
    page.keyboard.press("End")
    expect(focused).to_have_text(words[-1]["word"])
    expect(stops).to_have_count(1)


def test_the_browser_finds_every_word(page: Page, spoken: str, transcript: dict[str, Any]) -> None:
    visit(page, spoken)
    expect(page.locator(".said").last).to_have_text(transcript["utterances"][-1]["text"])
    assert page.evaluate("text => find(text)", "not an ill-disposed young man")
    assert not page.evaluate("text => find(text)", "a sentence that nobody spoke")


def test_the_waveform_is_a_slider_with_the_position_as_its_text(
    page: Page, spoken: str, transcript: dict[str, Any]
) -> None:
    visit(page, spoken)
    is_ready_to_play(page)
    slider = page.get_by_role("slider", name="Position in the recording")
    expect(slider).to_have_attribute("aria-valuemax", str(PIECE_SECONDS))
    expect(slider).to_have_attribute("aria-valuetext", "0 seconds")
    slider.focus()
    page.keyboard.press("ArrowRight")
    wait_until(lambda: abs(current_time(page) - 5) < 0.05)
    first = " ".join(transcript["utterances"][0]["text"].split()[:6])
    expect(slider).to_have_attribute("aria-valuetext", f"5 seconds, {first}")
    page.keyboard.press("End")
    wait_until(lambda: current_time(page) > PIECE_SECONDS - 0.1)
    page.keyboard.press("Home")
    wait_until(lambda: current_time(page) == 0)
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    wait_until(lambda: abs(current_time(page) - PIECE_SECONDS / 2) < 0.1)
    page.get_by_role("button", name="Forward 5 s").click()
    wait_until(lambda: abs(current_time(page) - PIECE_SECONDS / 2 - 5) < 0.1)


def test_the_waveform_is_drawn_and_a_player_needs_none(page: Page, spoken: str, complaints: Complaints) -> None:
    pixels = """() => {
        const canvas = document.querySelector(".wave canvas");
        if (!canvas?.width) return 0;
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        const data = copy.getImageData(0, 0, canvas.width, canvas.height / 3).data;
        return data.filter((value, at) => at % 4 === 3 && value > 0).length;
    }"""
    visit(page, spoken)
    wait_until(lambda: page.evaluate(pixels) > 100)
    loud = b"".join(bytes([129, 127]) for _ in range(PIECE_SECONDS * 10))
    header = b"".join(number.to_bytes(4, "little") for number in (2, 1, RATE, 1600, PIECE_SECONDS * 10, 1))
    page.route(WAVEFORM, lambda route: route.fulfill(body=header + loud))
    page.reload()
    wait_until(lambda: page.evaluate(pixels) > 10_000)
    complaints.expect("/waveform")
    page.route(WAVEFORM, lambda route: route.fulfill(status=404, json={"code": 5, "message": "no"}))
    page.reload()
    is_ready_to_play(page)
    page.get_by_role("button", name="Play", exact=True).click()
    wait_until(lambda: current_time(page) > 0)


def test_all_fields_of_the_record_are_shown_under_their_names(page: Page, rest: httpx.Client, spoken: str) -> None:
    visit(page, spoken)
    fields = rest.get(f"{SESSIONS}/{spoken}").json()
    shown = page.locator("dl.fields dt").all_inner_texts()
    assert sorted(shown) == sorted(fields)
    expect(page.locator("dl.fields dd", has_text=fields["audio_uri"])).to_be_visible()


@pytest.mark.parametrize("name", ["WAV", "TXT", "SRT", "VTT", "JSON"])
def test_downloads_are_what_the_service_has(page: Page, rest: httpx.Client, spoken: str, name: str) -> None:
    visit(page, spoken)
    with page.expect_download() as started:
        page.get_by_role("link", name=name).click()
    way = "audio" if name == "WAV" else f"export/{name.lower()}"
    saved = Path(started.value.path()).read_bytes()
    assert saved == rest.get(f"{SESSIONS}/{spoken}/{way}").content
    assert started.value.suggested_filename.endswith(f".{name.lower()}")


def test_a_download_that_fails_shows_the_reason_instead_of_saving_the_error(
    page: Page, spoken: str, complaints: Complaints
) -> None:
    complaints.expect("/export/srt")
    visit(page, spoken)
    page.route(
        "**/export/srt", lambda route: route.fulfill(status=409, json={"code": 10, "message": "it is not stored"})
    )
    page.get_by_role("link", name="SRT").click()
    expect(page.locator(".toast")).to_contain_text("It is not stored.")


def test_a_chain_is_one_recording_by_one_switch(
    page: Page, rest: httpx.Client, resumed: tuple[str, str], shoot: Shoot
) -> None:
    earlier, later = resumed
    joined = rest.get(f"{SESSIONS}/{later}/transcript", params={"linked": "true"}).json()
    own = rest.get(f"{SESSIONS}/{later}/transcript").json()
    assert len(joined["utterances"]) > len(own["utterances"])
    visit(page, later)
    expect(page.locator(".said")).to_have_count(len(own["utterances"]))
    page.get_by_role("switch", name="As one recording").check()
    expect(page.locator(".said")).to_have_count(len(joined["utterances"]))
    assert "linked=true" in page.url
    wait_until(lambda: abs(page.evaluate("document.querySelector('audio').duration") - joined["duration"]) < 0.05)
    for name in ("WAV", "SRT"):
        expect(page.get_by_role("link", name=name)).to_have_attribute("href", re.compile(r"\?linked=true$"))
    with page.expect_download() as started:
        page.get_by_role("link", name="WAV").click()
    whole = rest.get(f"{SESSIONS}/{later}/audio", params={"linked": "true"}).content
    assert Path(started.value.path()).read_bytes() == whole
    shoot(page, "session-chain")
    page.get_by_role("link", name="Earlier").click()
    expect(page.locator(".id")).to_contain_text(earlier)
    expect(page.locator(".chip", has_text="Interrupted")).to_be_visible()
    expect(page.locator(".notes")).to_contain_text("All audio that the service had received is transcribed")
    page.get_by_role("link", name="Later").click()
    expect(page.locator(".id")).to_contain_text(later)
    expect(page.get_by_role("switch", name="As one recording")).to_be_checked()


def test_a_running_session_shows_its_text_and_becomes_a_recording_at_its_end(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample, shoot: Shoot
) -> None:
    with streaming(stack, interim_results="true") as (socket, session_id):
        visit(page, session_id)
        expect(page.locator(".chip", has_text="Running")).to_be_visible()
        expect(page.locator("main")).to_contain_text("Nobody has spoken yet.")
        # At the speed of speech: partials are published from the moment at which somebody is known to watch.
        for begin in range(0, 6 * RATE, RATE // 2):
            send(socket, sample.pcm[begin : begin + RATE // 2])
            page.wait_for_timeout(500)
        partial = page.locator(".partial")
        expect(partial).to_contain_text("John Dashwood", timeout=30_000)
        send(socket, sample.pcm[6 * RATE : 8 * RATE])
        log = page.get_by_role("log")
        expect(log).to_contain_text("John Dashwood", timeout=30_000)
        expect(partial).to_have_attribute("aria-hidden", "true")
        expect(page.locator(".player")).to_be_hidden()
        send(socket, sample.pcm[8 * RATE : PIECE_SECONDS * RATE])
        expect(log).to_contain_text("young man", timeout=30_000)
        shoot(page, "session-running")
        socket.send('{"type":"end"}')
        for _ in socket:
            pass
    expect(page.locator(".chip", has_text="Completed")).to_be_visible(timeout=30_000)
    texts = [each["text"] for each in rest.get(f"{SESSIONS}/{session_id}/utterances").json()["utterances"]]
    expect(page.locator(".said")).to_have_text(texts, timeout=30_000)
    is_ready_to_play(page)


def test_a_running_session_is_ended_from_its_page(page: Page, stack: Stack, rest: httpx.Client) -> None:
    with streaming(stack) as (_, session_id):
        visit(page, session_id)
        page.get_by_role("button", name="End").click()
        page.get_by_role("dialog").get_by_role("button", name="End the session").click()
        expect(page.locator(".chip", has_text="Interrupted")).to_be_visible(timeout=30_000)
    assert rest.get(f"{SESSIONS}/{session_id}").json()["status"] == "interrupted"


def test_a_session_that_stored_nothing_names_the_field_that_asks_for_it(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample
) -> None:
    session_id = record(stack, rest, sample.pcm[:RATE], store_audio="false", store_transcript="false")
    visit(page, session_id)
    expect(page.locator("main")).to_contain_text("did not ask for it (store_audio)")
    expect(page.locator("main")).to_contain_text("did not ask for it (store_transcript)")
    expect(page.locator(".player")).to_be_hidden()


def test_words_without_times_are_played_by_utterance(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample
) -> None:
    session_id = record(stack, rest, sample.pcm[: PIECE_SECONDS * RATE], word_timestamps="false")
    second = rest.get(f"{SESSIONS}/{session_id}/transcript").json()["utterances"][1]
    assert second["words"] == []
    visit(page, session_id)
    expect(page.locator("main")).to_contain_text("word_timestamps was off")
    is_ready_to_play(page)
    note_seeks(page)
    page.get_by_text(second["text"]).click()
    wait_for_seek(page, second["start"] - 0.1, second["start"] + 0.1)


def test_audio_that_cannot_be_read_is_reported_with_its_download(
    page: Page, spoken: str, complaints: Complaints
) -> None:
    complaints.expect("/audio")
    gone = {"code": 14, "message": "the audio object is not readable"}
    page.route("**/audio", lambda route: route.fulfill(status=503, json=gone))
    visit(page, spoken)
    fault = page.locator(".player [role=alert]")
    expect(fault).to_contain_text("The audio object is not readable.")
    expect(fault.get_by_role("link", name="Download")).to_be_visible()
    page.unroute("**/audio")
    fault.get_by_role("button", name="Try again").click()
    wait_until(lambda: current_time(page) > 0)
    expect(fault).to_be_empty()


def test_a_format_that_the_browser_cannot_play_is_named(page: Page, spoken: str, complaints: Complaints) -> None:
    complaints.expect("/audio")
    page.route("**/audio", lambda route: route.fulfill(body=b"no audio at all", content_type="audio/x-none"))
    visit(page, spoken)
    expect(page.locator(".player [role=alert]")).to_contain_text("cannot play 16-bit PCM at 16 kHz in a WAV file")


def test_a_session_that_is_deleted_elsewhere_stops_and_is_reported_deleted(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample, complaints: Complaints
) -> None:
    session_id = record(stack, rest, sample.pcm[: 4 * RATE])
    complaints.expect(session_id)  # a request that meets the deletion
    visit(page, session_id)
    is_ready_to_play(page)
    page.get_by_role("button", name="Play", exact=True).click()
    page.evaluate("globalThis.audio = document.querySelector('audio')")
    assert rest.delete(f"{SESSIONS}/{session_id}").status_code == 200
    expect(page.get_by_role("heading", level=1)).to_have_text("This session was deleted", timeout=30_000)
    assert page.evaluate("audio.paused && !audio.hasAttribute('src')")
    expect(page.locator(".said")).to_have_count(0)


def test_delete_asks_and_leads_to_the_list(page: Page, stack: Stack, rest: httpx.Client, sample: Sample) -> None:
    session_id = record(stack, rest, sample.pcm[: 2 * RATE])
    visit(page, session_id)
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("its audio, its transcript and its record")
    dialog.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile(r"/console/$"))
    assert rest.get(f"{SESSIONS}/{session_id}").status_code == 404


def test_a_recording_is_enhanced_from_its_page_and_the_job_canceled(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample, complaints: Complaints
) -> None:
    complaints.expect("/enhance")
    session_id = record(stack, rest, sample.pcm[: 4 * RATE])
    visit(page, session_id)
    page.get_by_role("button", name="Enhance").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Model").fill("nonsense")
    dialog.get_by_role("button", name="Enhance").click()
    expect(dialog).to_contain_text("nonsense")
    dialog.get_by_label("Model").fill("accurate")
    dialog.get_by_label("Vocabulary").fill("Dashwood, Norland Park")
    dialog.get_by_label("Language").fill("en")
    dialog.get_by_role("button", name="Enhance").click()
    job = page.get_by_role("region", name="Enhancement")
    expect(job).to_contain_text("Queued")
    made = rest.get(f"{SESSIONS}/{session_id}/enhancement").json()
    assert (made["model"], made["language"], made["vocabulary"]) == ("accurate", "en", ["Dashwood", "Norland Park"])
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("Canceled")
    job.get_by_role("button", name="Try again").click()
    expect(job).to_contain_text("Queued")


def test_versions_are_listed_chosen_and_made_current(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample, shoot: Shoot
) -> None:
    session_id = record(stack, rest, sample.pcm[: 4 * RATE])
    add_version(stack, session_id, 2, [utterance(0.2, "Better words.")], seconds=4.0)
    add_version(
        stack, session_id, 3, [utterance(0.2, "Doubtful words.", confidence=0.3)], seconds=4.0, verdict="doubtful"
    )
    visit(page, session_id)
    expect(page.locator(".said")).to_have_text("Better words.")
    listed = page.get_by_role("region", name="Versions").get_by_role("listitem")
    expect(listed).to_have_count(3)
    expect(listed.nth(2)).to_contain_text("Doubtful: fewer words than the live transcript.")
    listed.nth(2).get_by_role("button", name="Version 3, enhanced").click()
    expect(page.locator(".said")).to_have_text("Doubtful words.")
    expect(page.locator(".said .doubtful").first).to_have_attribute("title", "Confidence 30 %")
    expect(page.get_by_role("link", name="TXT")).to_have_attribute("href", re.compile(r"\?version=3$"))
    shoot(page, "session-versions")
    listed.nth(2).get_by_role("button", name="Make current").click()
    expect(listed.nth(2).get_by_text("Current", exact=True)).to_be_visible()
    assert rest.get(f"{SESSIONS}/{session_id}").json()["transcript_version"] == 3
    expect(listed.nth(0).get_by_role("link", name="Compare")).to_have_attribute(
        "href", f"compare.html?id={session_id}&a=3&b=1"
    )
    listed.nth(1).get_by_role("button", name="Delete version 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(listed).to_have_count(2)


def test_text_of_a_stranger_stays_text_and_fits_the_page(
    page: Page, stack: Stack, rest: httpx.Client, sample: Sample
) -> None:
    session_id = record(stack, rest, sample.pcm[: 4 * RATE])
    hostile = "<img src=x onerror=alert(1)> </p><script>alert(2)</script> &amp;"
    arabic, endless = "مرحبا بالعالم", "a" * 10_000
    spoken = [utterance(0, hostile), utterance(2, arabic, language="ar"), utterance(3, endless)]
    add_version(stack, session_id, 2, spoken, seconds=4.0)
    visit(page, session_id)
    texts = page.locator(".said")
    expect(texts).to_have_count(3)
    assert texts.all_text_contents() == [hostile, arabic, endless]
    assert texts.nth(1).evaluate("element => getComputedStyle(element).direction") == "rtl"
    assert overflow(page) == 0
    page.set_viewport_size({"width": 320, "height": 800})
    assert overflow(page) == 0
    page.locator(".said > span", has_text="مرحبا").focus()
    page.locator(".said > span", has_text="مرحبا").click()
    page.locator(".said > span", has_text="مرحبا").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".said > span:focus")).to_have_text("بالعالم")


@pytest.mark.parametrize(
    ("query", "title"), [("", "no session of this id"), (f"?id=sess_{'0' * 32}", "no such session")]
)
def test_an_id_that_names_nothing_is_reported(page: Page, complaints: Complaints, query: str, title: str) -> None:
    complaints.expect("/v1/realtime/sessions/")
    page.goto(f"session.html{query}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(title)
    expect(page.get_by_role("link", name="All sessions")).to_be_visible()


def test_a_transcript_of_four_hours_is_all_in_the_page(
    page: Page, rest: httpx.Client, spoken: str, context: BrowserContext, record_property: Callable[[str, object], None]
) -> None:
    sentences = [
        {
            "start": at * 3.6,
            "end": at * 3.6 + 3.4,
            "text": " ".join(f"word{at * 10 + each}" for each in range(10)),
            "confidence": 0.9,
            "language": "en",
            "words": [
                {
                    "word": f"word{at * 10 + each}",
                    "start": at * 3.6 + each * 0.34,
                    "end": at * 3.6 + each * 0.34 + 0.3,
                    "confidence": 0.9,
                }
                for each in range(10)
            ],
        }
        for at in range(4000)
    ]
    long = {"session_id": spoken, "language": "en", "duration": 14_400, "text": "", "utterances": sentences}
    page.route("**/transcript", lambda route: route.fulfill(json=long))
    page.add_init_script(
        """globalThis.tasks = [];
        const note = (list) => tasks.push(...list.getEntries().map((each) => each.duration));
        new PerformanceObserver(note).observe({type: "longtask", buffered: true});"""
    )
    visit(page, spoken)
    expect(page.locator(".said > span")).to_have_count(40_000, timeout=60_000)
    assert page.evaluate("text => find(text)", "word39990")
    built = page.evaluate("() => ({tasks: tasks.map(Math.round), after: Math.round(performance.now())})")
    record_property("long_tasks_ms", built["tasks"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_axe_finds_nothing(page: Page, spoken: str, resumed: tuple[str, str], scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    for session_id, more in ((spoken, "#t=9.2"), (resumed[1], "&linked=true"), (resumed[0], "")):
        visit(page, session_id, more)
        is_ready_to_play(page)
        expect(page.locator(".said").first).to_be_visible()
        assert violations(page) == []
        assert overflow(page) == 0
    page.get_by_role("button", name="Enhance").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
