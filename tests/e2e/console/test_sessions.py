"""The list of sessions in Chromium, with sessions that the service made."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect
from websockets.sync.client import ClientConnection, connect

from stack.supervisor import Stack
from tests.e2e.console.conftest import Complaints, overflow

PATH = "/v1/realtime/sessions"
SILENCE = bytes(3200)


class Sessions:
    """Makes sessions over the WebSocket, and deletes what is left of them."""

    def __init__(self, stack: Stack, rest: httpx.Client) -> None:
        self._stack, self.rest = stack, rest
        self._open = ExitStack()

    def begin(self, query: str = "store_audio=true&store_transcript=true") -> tuple[str, ClientConnection]:
        url = f"{self._stack.ws_url}/v1/audio/transcriptions/stream?{query}"
        socket = self._open.enter_context(connect(url, proxy=None))
        begin = json.loads(socket.recv())
        socket.send(SILENCE)
        return str(begin["session_id"]), socket

    def end(self, socket: ClientConnection) -> None:
        socket.send('{"type":"end"}')
        for _ in socket:
            pass

    def make(self, query: str = "store_audio=true&store_transcript=true") -> str:
        session_id, socket = self.begin(query)
        self.end(socket)
        return session_id

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.rest.get(f"{PATH}?limit=100").json()["sessions"]
        return found

    def clear(self) -> None:
        self._open.close()
        while found := self.listed():
            for session in found:
                # A session whose client has just gone is active for a moment.
                self.rest.delete(f"{PATH}/{session['id']}")


@pytest.fixture
def sessions(stack: Stack, rest: httpx.Client) -> Iterator[Sessions]:
    sessions = Sessions(stack, rest)
    sessions.clear()
    yield sessions
    sessions.clear()


def open_list(page: Page, search: str = "") -> None:
    """Opens the list and waits until changes arrive."""
    page.goto(f"./{search}")
    expect(page.get_by_role("button", name="Live", exact=True)).to_be_visible(timeout=20_000)


def row(page: Page, session_id: str) -> Any:
    return page.locator(f'tr[data-key="{session_id}"]')


def test_an_empty_list_shows_how_to_make_a_session(
    page: Page, sessions: Sessions, shoot: Callable[[Page, str], None]
) -> None:
    open_list(page)
    expect(page.get_by_role("heading", name="No sessions yet")).to_be_visible()
    expect(page.get_by_text("dalston transcribe speech.wav --store")).to_be_visible()
    shoot(page, "sessions-empty")
    # The first one takes its place.
    session_id = sessions.make()
    expect(row(page, session_id)).to_contain_text("Completed")


def test_a_row_shows_the_record(page: Page, sessions: Sessions, shoot: Callable[[Page, str], None]) -> None:
    stored = sessions.make("store_audio=true&store_transcript=true&model=accurate&language=de")
    nothing = sessions.make("language=en")
    interrupted, socket = sessions.begin()
    socket.close()
    open_list(page)
    shown = row(page, stored)
    for text in ("Completed", "0:00", "de", "accurate", "Audio", "Transcript"):
        expect(shown).to_contain_text(text)
    expect(row(page, nothing)).to_contain_text("Nothing")
    expect(row(page, interrupted)).to_contain_text("Interrupted")
    assert shown.locator("a.open").get_attribute("href") == f"session.html?id={stored}"
    page.set_viewport_size({"width": 320, "height": 800})
    assert overflow(page) == 0
    page.set_viewport_size({"width": 1280, "height": 800})
    shoot(page, "sessions")


def test_a_running_session_changes_in_place(page: Page, sessions: Sessions) -> None:
    session_id, socket = sessions.begin()
    open_list(page)
    expect(row(page, session_id)).to_contain_text("Running")
    # The element stays, and with it a tick.
    row(page, session_id).get_by_role("checkbox").check()
    row(page, session_id).evaluate("(element) => (element.mark = 'the same')")
    for _ in range(20):
        socket.send(SILENCE)
    sessions.end(socket)
    expect(row(page, session_id)).to_contain_text("Completed", timeout=20_000)
    expect(row(page, session_id)).to_contain_text("0:02")
    assert row(page, session_id).evaluate("(element) => element.mark") == "the same"
    expect(row(page, session_id).get_by_role("checkbox")).to_be_checked()


def test_new_sessions_slide_in_and_never_under_a_pointer(page: Page, sessions: Sessions) -> None:
    first = sessions.make()
    open_list(page)
    expect(row(page, first)).to_be_visible()
    page.mouse.move(5, 5)
    second = sessions.make()
    expect(row(page, second)).to_be_visible()
    row(page, first).hover()
    place = row(page, first).bounding_box()
    third = sessions.make()
    expect(page.get_by_role("button", name="1 new session", exact=True)).to_be_visible()
    expect(row(page, third)).to_have_count(0)
    assert row(page, first).bounding_box() == place
    page.get_by_role("button", name="1 new session", exact=True).click()
    expect(page.locator("tbody tr").first).to_have_attribute("data-key", third)
    # The pointer leaves: what waits slides in.
    row(page, first).hover()
    fourth = sessions.make()
    expect(page.get_by_role("button", name="1 new session", exact=True)).to_be_visible()
    page.mouse.move(5, 5)
    expect(page.locator("tbody tr").first).to_have_attribute("data-key", fourth)


def test_filters_are_in_the_address_and_survive_reload_and_back(page: Page, sessions: Sessions) -> None:
    done = sessions.make()
    active, _ = sessions.begin()
    open_list(page)
    page.get_by_label("Status").select_option("Running")
    expect(page).to_have_url(re.compile(r"\?status=active$"))
    expect(row(page, done)).to_have_count(0)
    expect(row(page, active)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("active")
    expect(row(page, active)).to_be_visible()
    expect(row(page, done)).to_have_count(0)
    page.get_by_label("From", exact=True).fill("2001-01-01")
    page.get_by_label("To", exact=True).fill("2001-01-02")
    expect(page.get_by_role("heading", name="No session matches")).to_be_visible()
    page.get_by_role("button", name="Show all sessions").click()
    expect(row(page, done)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="No session matches")).to_be_visible()
    expect(page.get_by_label("To", exact=True)).to_have_value("2001-01-02")
    # An address that somebody has typed wrong is one without these filters.
    page.goto("./?status=odd&from=2026-99-99")
    expect(row(page, done)).to_be_visible()


def test_pages_go_by_cursor_back_and_forth(page: Page, sessions: Sessions) -> None:
    ids = [sessions.make("language=en") for _ in range(53)][::-1]
    open_list(page)
    expect(page.locator("tbody tr")).to_have_count(50)
    expect(page.get_by_role("navigation", name="Pages of the list")).to_contain_text("1 to 50 of 53")
    page.get_by_role("button", name="Older").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tbody tr").first).to_have_attribute("data-key", ids[50])
    expect(page.get_by_role("button", name="Older")).to_have_attribute("aria-disabled", "true")
    page.reload()
    expect(page.locator("tbody tr").first).to_have_attribute("data-key", ids[50])
    page.go_back()
    expect(page.locator("tbody tr").first).to_have_attribute("data-key", ids[0])
    page.go_forward()
    page.get_by_role("button", name="Newer").click()
    expect(page.locator("tbody tr").first).to_have_attribute("data-key", ids[0])


def test_deleting_asks_and_the_focus_goes_to_the_next_row(
    page: Page, sessions: Sessions, shoot: Callable[[Page, str], None]
) -> None:
    older, one = sessions.make(), sessions.make()
    open_list(page)
    row(page, one).get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Delete this session?")
    expect(dialog).to_contain_text(one)
    expect(dialog).to_contain_text("0:00 long")
    expect(dialog).to_contain_text("Its record goes, with its audio and its transcript.")
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    shoot(page, "sessions-delete")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert len(sessions.listed()) == 2
    row(page, one).get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(row(page, one)).to_have_count(0)
    expect(row(page, older).locator("a.open")).to_be_focused()
    assert [session["id"] for session in sessions.listed()] == [older]


def test_only_ticked_sessions_are_deleted_and_an_active_one_is_refused(
    page: Page, sessions: Sessions, complaints: Complaints, shoot: Callable[[Page, str], None]
) -> None:
    kept = sessions.make()
    done = sessions.make()
    active, _ = sessions.begin()
    complaints.expect("409 (Conflict)")
    open_list(page)
    for each in (done, active):
        row(page, each).get_by_role("checkbox").check()
    bar = page.get_by_text("2 sessions ticked")
    expect(bar).to_be_visible()
    shoot(page, "sessions-ticked")
    page.keyboard.press("Delete")
    page.get_by_role("dialog", name="Delete 2 sessions?").get_by_role("button", name="Delete", exact=True).click()
    expect(row(page, done)).to_have_count(0)
    expect(page.locator("main")).to_contain_text("was not deleted")
    expect(page.locator("main")).to_contain_text("End the session first, or wait for its end.")
    expect(row(page, active)).to_contain_text("Running")
    assert {session["id"] for session in sessions.listed()} == {kept, active}
    shoot(page, "sessions-refused")


def test_a_session_deleted_elsewhere_greys_and_goes(page: Page, sessions: Sessions) -> None:
    kept, one = sessions.make(), sessions.make()
    open_list(page)
    row(page, one).hover()
    sessions.rest.delete(f"{PATH}/{one}")
    expect(row(page, one)).to_have_class(re.compile("gone"))
    page.mouse.move(5, 5)
    expect(row(page, one)).to_have_count(0)
    expect(row(page, kept)).to_be_visible()


def test_what_is_shown_stays_while_the_service_is_down(
    page: Page, sessions: Sessions, complaints: Complaints, shoot: Callable[[Page, str], None]
) -> None:
    session_id = sessions.make()
    open_list(page)
    complaints.expect("503 (Service Unavailable)")
    body = {"code": 14, "message": "the service is not available; try again shortly", "details": []}

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json=body)

    page.route(f"**{PATH}?*", refuse)
    page.get_by_label("Source").select_option("Live")
    expect(page.locator(".note")).to_contain_text("The service is not available; try again shortly.")
    expect(page.locator(".note")).to_contain_text("What is stored stays stored.")
    expect(row(page, session_id)).to_be_visible()
    shoot(page, "sessions-down")
    page.unroute(f"**{PATH}?*", refuse)
    page.get_by_role("button", name="Try now").click()
    expect(page.locator(".note")).to_have_count(0)
    expect(row(page, session_id)).to_be_visible()


def test_one_tab_has_the_stream_and_another_follows_when_it_closes(
    context: BrowserContext, page: Page, sessions: Sessions
) -> None:
    streams: list[str] = []
    context.on("request", lambda request: streams.append(request.url) if ":watch" in request.url else None)
    open_list(page)
    # Seven and more: HTTP/1.1 has six connections.
    others = [context.new_page() for _ in range(8)]
    for other in others:
        open_list(other)
    assert len(streams) == 1
    session_id = sessions.make()
    for other in (page, *others):
        expect(row(other, session_id)).to_be_visible()
    page.close()
    second = sessions.make()
    for other in others:
        expect(row(other, second)).to_be_visible()
    assert len(streams) == 2
    assert "resume_token=" in streams[1]


def test_changes_can_be_paused(page: Page, sessions: Sessions) -> None:
    open_list(page)
    page.get_by_role("button", name="Live", exact=True).click()
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    session_id = sessions.make()
    expect(row(page, session_id)).to_have_count(0)
    page.get_by_role("button", name="Paused").click()
    expect(row(page, session_id)).to_be_visible()


def test_a_session_is_found_by_its_id(page: Page, sessions: Sessions, complaints: Complaints) -> None:
    session_id = sessions.make()
    open_list(page)
    page.keyboard.press("/")
    field = page.get_by_label("Go to session")
    expect(field).to_be_focused()
    field.fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.locator("#goto-wrong")).to_have_text("An id is sess_ and 32 hexadecimal digits.")
    complaints.expect("404 (Not Found)")
    field.fill("sess_" + "0" * 32)
    page.keyboard.press("Enter")
    expect(page.locator("#goto-wrong")).to_have_text("There is no session with this id.")
    field.fill(f" https://example.com/x?id={session_id} ")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"session.html\\?id={session_id}$"))
    page.goto(f"./?id={session_id}")
    expect(page).to_have_url(re.compile(f"session.html\\?id={session_id}$"))


def test_the_list_works_by_keyboard(page: Page, sessions: Sessions) -> None:
    older, newer = sessions.make(), sessions.make()
    open_list(page)
    expect(row(page, newer)).to_be_visible()
    page.keyboard.press("j")
    expect(row(page, newer).locator("a.open")).to_be_focused()
    page.keyboard.press("j")
    expect(row(page, older).locator("a.open")).to_be_focused()
    page.keyboard.press("x")
    expect(row(page, older).get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("Next session")
    page.get_by_label("Single keys are shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    expect(row(page, older).locator("a.open")).to_be_focused()


def test_the_scheme_is_chosen_and_remembered(page: Page, sessions: Sessions) -> None:
    open_list(page)
    for name in ("Light", "Dark"):
        page.get_by_role("button", name="scheme").click()
        expect(page.get_by_role("button", name=f"{name} scheme")).to_be_visible()
    page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
