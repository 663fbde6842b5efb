"""The jobs page in Chromium: files that are sent, and the queue. No worker runs, so jobs stay queued."""

import io
import re
import wave
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.console.conftest import Complaints, overflow, unseen_text, violations

JOBS = "/v1/jobs"
UPLOADS = "/v1/audio/transcriptions"


def wav(seconds: float, value: int) -> bytes:
    """A file that no other value makes: the same file would get the same job."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(value.to_bytes(2, "little") * int(8000 * seconds))
    return content.getvalue()


def chosen(*names: str, value: int = 1, seconds: float = 1.0) -> list[Any]:
    return [
        {"name": name, "mimeType": "audio/wav", "buffer": wav(seconds, value + number)}
        for number, name in enumerate(names)
    ]


@pytest.fixture
def jobs(rest: httpx.Client) -> Iterator[httpx.Client]:
    """The REST interface of a service without jobs."""

    def clear() -> None:
        while found := rest.get(JOBS, params={"limit": 100}).json()["jobs"]:
            for job in found:
                rest.delete(f"{JOBS}/{job['id']}")
                rest.delete(f"/v1/realtime/sessions/{job['session_id']}")

    clear()
    yield rest
    clear()


def send(rest: httpx.Client, name: str, value: int) -> dict[str, Any]:
    answer = rest.post(UPLOADS, files={"file": (name, wav(0.2, value))}, headers={"prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(has_text=name)


def open_jobs(page: Page, search: str = "") -> None:
    page.goto(f"jobs.html{search}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    expect(page.locator("tbody .ghost")).to_have_count(0, timeout=20_000)


def test_an_empty_list_explains_how_a_job_is_made(
    page: Page, jobs: httpx.Client, shoot: Callable[[Page, str], None]
) -> None:
    open_jobs(page)
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    shoot(page, "jobs-empty")


def test_several_files_become_jobs_with_their_names_and_options(page: Page, jobs: httpx.Client) -> None:
    open_jobs(page)
    page.get_by_text("Language, model and words").click()
    page.get_by_label("Language that is spoken").select_option("de")
    page.get_by_label("Model").select_option("fast")
    page.get_by_label("Names and terms").fill("Norland, Dashwood")
    page.locator("input[type=file]").set_input_files(chosen("one.wav", "two.wav", "three.wav"))
    for name in ("one.wav", "two.wav", "three.wav"):
        line = row(page, name)
        expect(line).to_contain_text("Queued", timeout=20_000)
        expect(line).to_contain_text("German")
        expect(line).to_contain_text("2 terms")
    expect(page.get_by_role("list", name="Files on their way")).to_be_hidden()
    expect(page.get_by_text("No worker is running.").first).to_be_visible()
    found = jobs.get(JOBS).json()["jobs"]
    assert sorted(job["file_name"] for job in found) == ["one.wav", "three.wav", "two.wav"]
    for job in found:
        assert (job["kind"], job["model"], job["language"]) == ("upload", "fast", "de")
        assert job["vocabulary"] == ["Norland", "Dashwood"]
    # The names are the service's: they are there after a reload.
    page.reload()
    expect(row(page, "one.wav")).to_be_visible(timeout=20_000)
    session = found[0]["session_id"]
    expect(page.locator(f'a[href="session.html?id={session}"]')).to_be_visible()


def test_a_file_that_is_dropped_anywhere_is_sent(page: Page, jobs: httpx.Client) -> None:
    open_jobs(page)
    transfer = page.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav", {type: "audio/wav"}));
          return transfer;
        }""",
        list(wav(0.2, 9)),
    )
    page.locator("h1").dispatch_event("dragover", {"dataTransfer": transfer})
    expect(page.locator(".drop")).to_have_class(re.compile("over"))
    page.locator("h1").dispatch_event("drop", {"dataTransfer": transfer})
    expect(row(page, "dropped.wav")).to_contain_text("Queued", timeout=20_000)


def test_a_file_of_another_format_is_refused_in_words(page: Page, jobs: httpx.Client, complaints: Complaints) -> None:
    complaints.expect("400 (Bad Request)")
    open_jobs(page)
    page.locator("input[type=file]").set_input_files(
        [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no audio at all, only words" * 100}]
    )
    item = page.get_by_role("listitem").filter(has_text="notes.txt")
    expect(item.get_by_role("button", name="Send again")).to_be_visible(timeout=20_000)
    expect(item).to_contain_text(re.compile("format|decode|audio"))
    assert "notes.txt" in unseen_text(page)
    item.get_by_role("button", name="Remove notes.txt").click()
    expect(item).to_have_count(0)


def test_a_file_whose_connection_was_lost_is_sent_again_and_becomes_one_job(
    page: Page, jobs: httpx.Client, complaints: Complaints
) -> None:
    complaints.expect("net::ERR_CONNECTION_RESET")
    tries = []

    def lose_the_first_answer(route: Route) -> None:
        tries.append(route.request.url)
        if len(tries) == 1:
            # The service has the file and its job; the page has not heard of it.
            route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    open_jobs(page)
    page.route(f"**{UPLOADS}", lose_the_first_answer)
    page.locator("input[type=file]").set_input_files(chosen("again.wav"))
    expect(page.get_by_text("The connection was lost. It is sent again")).to_be_visible(timeout=20_000)
    expect(row(page, "again.wav")).to_contain_text("Queued", timeout=30_000)
    expect(page.get_by_role("list", name="Files on their way")).to_be_hidden(timeout=30_000)
    assert len(tries) == 2
    assert len(jobs.get(JOBS).json()["jobs"]) == 1


def test_a_job_is_canceled_and_made_again(page: Page, jobs: httpx.Client) -> None:
    made = send(jobs, "talk.wav", 3)
    open_jobs(page)
    row(page, "talk.wav").get_by_role("button", name="Cancel talk.wav").click()
    expect(row(page, "talk.wav")).to_contain_text("Canceled")
    assert jobs.get(f"{JOBS}/{made['id']}").json()["status"] == "canceled"
    row(page, "talk.wav").get_by_role("button", name="Retry talk.wav").click()
    expect(page.get_by_role("row").filter(has_text="Queued")).to_have_count(1)
    found = jobs.get(JOBS).json()["jobs"]
    assert sorted(job["status"] for job in found) == ["canceled", "queued"]
    assert len({job["session_id"] for job in found}) == 1


def test_filters_and_pages_are_in_the_address(page: Page, jobs: httpx.Client) -> None:
    for number in range(27):
        made = send(jobs, f"file-{number:02}.wav", 100 + number)
        if number < 26:
            jobs.delete(f"{JOBS}/{made['id']}")
    open_jobs(page)
    expect(page.locator("tbody tr")).to_have_count(25)
    page.get_by_role("button", name="Older").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(row(page, "file-00.wav")).to_be_visible()
    assert "cursor=" in page.url
    page.reload()
    expect(row(page, "file-00.wav")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Newer").click()
    expect(row(page, "file-26.wav")).to_be_visible()
    page.get_by_label("Status").select_option("queued")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.url.endswith("jobs.html?status=queued")
    page.get_by_label("Kind").select_option("enhance")
    expect(page.get_by_role("heading", name="No job is like this")).to_be_visible()
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Status")).to_have_value("queued")
    page.get_by_label("Status").select_option("")
    expect(page.locator("tbody tr")).to_have_count(25)


def test_a_row_changes_in_place_and_new_ones_do_not_move_it(page: Page, jobs: httpx.Client) -> None:
    made = send(jobs, "first.wav", 5)
    answer = jobs.get(JOBS).json()

    def running(route: Route) -> None:
        job = {**answer["jobs"][0], "status": "running", "step": "transcribing", "progress": 0.4, "eta_seconds": 130}
        more = {**answer["jobs"][0], "id": "job_" + "f" * 32, "file_name": "second.wav"}
        route.fulfill(json={"jobs": [more, job]})

    open_jobs(page)
    button = row(page, "first.wav").get_by_role("button", name="Cancel first.wav")
    button.focus()
    page.evaluate("document.querySelector('tbody tr').mark = true")
    page.route(f"**{JOBS}?*", running)
    expect(row(page, "first.wav")).to_contain_text("40 % · Transcribing, about 2 min left.", timeout=20_000)
    expect(page.get_by_role("progressbar", name="Progress of first.wav")).to_have_attribute("value", "0.4")
    assert page.evaluate("document.querySelector('tbody tr').mark")
    expect(row(page, "second.wav")).to_have_count(0)
    page.get_by_role("button", name="Show 1 new job").click()
    expect(page.locator("tbody tr").first).to_contain_text("second.wav")
    page.unroute(f"**{JOBS}?*")
    assert jobs.get(f"{JOBS}/{made['id']}").json()["status"] == "queued"


def test_a_hidden_page_asks_nothing(page: Page, jobs: httpx.Client) -> None:
    send(jobs, "quiet.wav", 7)
    open_jobs(page)
    expect(row(page, "quiet.wav")).to_be_visible()
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    # What is on its way may still arrive.
    page.wait_for_timeout(1000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6000)
    assert asked == []
    with page.expect_request(lambda request: JOBS in request.url):
        page.evaluate(hide, False)


def test_an_outage_leaves_the_list_and_is_reported(page: Page, jobs: httpx.Client, complaints: Complaints) -> None:
    complaints.expect("net::ERR_CONNECTION_REFUSED")
    send(jobs, "kept.wav", 11)
    open_jobs(page)
    expect(row(page, "kept.wav")).to_be_visible()
    page.route(f"**{JOBS}?*", lambda route: route.abort("connectionrefused"))
    expect(page.get_by_text("The service cannot be reached.")).to_be_visible(timeout=20_000)
    expect(row(page, "kept.wav")).to_be_visible()
    page.unroute(f"**{JOBS}?*")
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_text("The service cannot be reached.")).to_have_count(0, timeout=20_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    page: Page, jobs: httpx.Client, scheme: str, shoot: Callable[[Page, str], None]
) -> None:
    for number, name in enumerate(("queued.wav", "a-name-without-any-place-to-break-" * 5 + ".wav")):
        send(jobs, name, 20 + number)
    jobs.delete(f"{JOBS}/{send(jobs, 'canceled.wav', 30)['id']}")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    open_jobs(page)
    expect(row(page, "queued.wav")).to_be_visible()
    page.get_by_text("Language, model and words").click()
    for width in (1280, 640, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == []
        assert overflow(page) == 0
    shoot(page, "jobs")
