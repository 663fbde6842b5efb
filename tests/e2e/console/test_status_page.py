"""The status page in Chromium: the figures of the service, what they mean, and what it shows when nothing answers."""

import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect
from websockets.sync.client import connect

from stack.supervisor import Stack
from tests.e2e.console.conftest import Complaints, overflow, violations
from tests.e2e.console.recorded import apart

STATUS = "/v1/status"
STREAM = "/v1/audio/transcriptions/stream"


@pytest.fixture(scope="module", autouse=True)
def no_process_of_the_past(stack: Stack) -> None:
    """Forgets processes that other tests have killed, which the status shows for minutes."""

    async def forget() -> None:
        connection = await asyncpg.connect(stack.database_url)
        try:
            await connection.execute("DELETE FROM process_reports WHERE id NOT IN (SELECT id FROM workers)")
        finally:
            await connection.close()

    apart(forget)


def tile(page: Page, name: str) -> Locator:
    return page.locator(".tile").filter(has=page.get_by_role("heading", name=name))


def open_status(page: Page) -> None:
    page.goto("status.html")
    expect(page.locator(".tile")).not_to_have_count(0, timeout=20_000)


@pytest.fixture
def answer(rest: httpx.Client) -> dict[str, Any]:
    """What the service answers, to be changed into what it would answer when something is wrong."""
    return dict(rest.get(STATUS).json())


def shown(page: Page, status: dict[str, Any]) -> None:
    page.route(f"**{STATUS}", lambda route: route.fulfill(json=status))
    open_status(page)


def ago(seconds: float, status: dict[str, Any]) -> str:
    checked = datetime.fromisoformat(status["checked_at"]).astimezone(UTC)
    return (checked - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def test_a_stream_is_counted_while_it_runs(page: Page, stack: Stack, rest: httpx.Client) -> None:
    open_status(page)
    before = rest.get(STATUS).json()
    servers = [each for each in before["processes"] if each["kind"] == "server"]
    places = sum(each["server"]["max_sessions"] for each in servers)
    running = servers[0]["server"]["sessions"]
    with connect(f"{stack.ws_url}{STREAM}", proxy=None) as socket:
        json.loads(socket.recv())
        socket.send(bytes(3200))
        expect(tile(page, "Live streams").locator(".value")).to_have_text(f"{running + 1}of {places}", timeout=30_000)
        expect(page.get_by_role("row").filter(has_text=servers[0]["id"])).to_contain_text(f"{running + 1} of {places}")
    expect(tile(page, "Live streams").locator(".value")).to_have_text(f"{running}of {places}", timeout=60_000)
    # The line of the tile has its words for who does not see it.
    expect(tile(page, "Live streams").locator(".unseen")).to_have_text(
        f"{running} to {running + 1} in the last minute."
    )


def test_the_figures_are_those_of_the_service(
    page: Page, answer: dict[str, Any], rest: httpx.Client, shoot: Callable[[Page, str], None]
) -> None:
    open_status(page)
    (server,) = (each for each in answer["processes"] if each["kind"] == "server")
    line = page.get_by_role("row").filter(has_text=server["id"])
    expect(line).to_contain_text("Server · answered")
    expect(line).to_contain_text("Ready")
    expect(line).to_contain_text(f"Version {server['version']}")
    limit = server["server"]["max_queue_delay_seconds"]
    expect(tile(page, "Queue delay")).to_contain_text(f"New sessions are refused above {limit:.0f} s")
    expect(page.get_by_text("Updated", exact=False).first).to_be_visible()
    shoot(page, "status")


def test_one_sentence_states_that_all_is_well(page: Page, answer: dict[str, Any]) -> None:
    for each in answer["processes"]:
        each["degradations"] = []
    answer["totals"] |= {"queued_jobs": 0, "unstored_sessions": 0, "sessions_to_recover": 0}
    for name in ("oldest_queued_at", "oldest_unstored_at"):
        answer["totals"].pop(name, None)
    shown(page, answer)
    expect(page.get_by_role("heading", name="All is well.")).to_be_visible()
    expect(page).to_have_title("Status · Dalston")
    expect(page.locator(".verdict")).to_contain_text("1 server.")


def test_what_is_wrong_is_listed_by_its_weight_with_effect_and_beginning(
    page: Page, answer: dict[str, Any], shoot: Callable[[Page, str], None]
) -> None:
    (server,) = (each for each in answer["processes"] if each["kind"] == "server")
    server["degradations"] = [
        {"name": "behind", "since": ago(3600, answer)},
        {"name": "object_store", "since": ago(270, answer)},
    ]
    dead = deepcopy(server) | {"id": "server-gone", "lease_valid": False, "degradations": []}
    dead["reported_at"] = ago(70, answer)
    late = deepcopy(server) | {"id": "server-late", "degradations": [{"name": "something_new"}]}
    late["reported_at"] = ago(42, answer)
    answer["processes"] = [server, dead, late]
    answer["totals"] |= {"queued_jobs": 12, "oldest_queued_at": ago(600, answer), "sessions_to_recover": 3}
    shown(page, answer)
    heading = page.locator(".verdict h2")
    expect(heading).to_have_text("S3 does not answer.")
    expect(page.locator(".verdict")).to_contain_text("For 4 minutes, since")
    expect(page.locator(".verdict")).to_contain_text("Nothing is lost while it has room.")
    found = page.locator(".troubles b").all_inner_texts()
    assert found == [
        "The server server-gone has no valid lease.",
        "The server server-late does not report.",
        "The queue delay is over its limit.",
        "No worker is running, and 12 jobs wait.",
        "3 sessions of a process that died wait for recovery.",
        "A process reports “something_new”.",
    ]
    expect(page).to_have_title("(7) Status · Dalston")
    expect(page.get_by_role("row").filter(has_text="server-gone")).to_contain_text("No lease")
    expect(page.get_by_role("row").filter(has_text="server-late")).to_contain_text("Silent for 42 s")
    # The figures are those of processes that live.
    sessions = server["server"]["max_sessions"] * 2
    expect(tile(page, "Live streams").locator(".value")).to_contain_text(f"of {sessions}")
    shoot(page, "status-troubled")


def test_without_postgres_the_server_that_answers_is_shown_and_the_totals_are_unknown(
    page: Page, answer: dict[str, Any]
) -> None:
    del answer["totals"]
    answer["processes"] = [each for each in answer["processes"] if each["id"] == answer["answered_by"]]
    answer["processes"][0]["degradations"] = [{"name": "database", "since": ago(30, answer)}]
    shown(page, answer)
    expect(page.locator(".verdict h2")).to_have_text("Postgres does not answer.")
    expect(page.locator(".troubles")).to_have_count(0)
    expect(tile(page, "Jobs").locator(".value")).to_have_text("\u2013")
    expect(tile(page, "Jobs")).to_contain_text("Unknown while Postgres does not answer")


def test_the_view_of_a_tenant_has_its_totals_and_no_process(page: Page, answer: dict[str, Any]) -> None:
    answer |= {"view": "tenant", "processes": []}
    answer.pop("answered_by", None)
    answer["totals"] |= {"active_sessions": 4, "queued_jobs": 0, "unstored_sessions": 0, "sessions_to_recover": 0}
    answer["totals"].pop("oldest_unstored_at", None)
    shown(page, answer)
    expect(page.get_by_role("heading", name="All is well.")).to_be_visible()
    expect(tile(page, "Live streams").locator(".value")).to_contain_text("4")
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.get_by_role("heading", name="Servers and workers")).to_be_hidden()


def test_a_key_without_the_scope_sees_which_one_it_needs(page: Page, complaints: Complaints) -> None:
    complaints.expect("403 (Forbidden)")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "PERMISSION_DENIED"}
    body = {"code": 7, "message": "the key lacks the scope admin", "details": [info]}
    page.route(f"**{STATUS}", lambda route: route.fulfill(status=403, json=body))
    page.goto("status.html")
    expect(page.get_by_role("heading", name="This key may not read the status")).to_be_visible()
    expect(page.get_by_text("The key lacks the scope admin.")).to_be_visible()


def test_an_answer_that_is_old_is_shown_as_old_and_since_when(
    page: Page, complaints: Complaints, shoot: Callable[[Page, str], None]
) -> None:
    complaints.expect("net::ERR_CONNECTION_REFUSED")
    open_status(page)
    value = tile(page, "Live streams").locator(".value").inner_text()
    page.route(f"**{STATUS}", lambda route: route.abort("connectionrefused"))
    expect(page.locator(".stale")).to_contain_text("The service cannot be reached.", timeout=20_000)
    expect(page.locator(".stale")).to_contain_text("Next try in")
    expect(page.locator(".head .chip")).to_contain_text("Stale:")
    expect(page.locator(".stale")).to_contain_text("The figures below are of")
    # A verdict that is old must not look like one of now.
    expect(page.locator(".verdict h2")).to_have_text("The state is unknown.")
    assert tile(page, "Live streams").locator(".value").inner_text() == value
    assert violations(page) == []
    shoot(page, "status-stale")
    page.unroute(f"**{STATUS}")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator(".head .chip")).to_contain_text("Updated", timeout=20_000)
    expect(page.locator(".stale")).to_be_hidden()
    expect(page.locator(".verdict h2")).not_to_have_text("The state is unknown.")


def test_an_answer_that_does_not_come_is_given_up(page: Page) -> None:
    page.clock.install()
    open_status(page)
    asked: list[Route] = []
    page.route(f"**{STATUS}", lambda route: asked.append(route))
    page.clock.run_for(6000)
    page.clock.run_for(16_000)
    expect(page.locator(".stale")).to_contain_text("The service has not answered for 15 seconds.")
    expect(page.locator(".tile")).not_to_have_count(0)
    assert asked
    page.unroute(f"**{STATUS}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(page: Page, answer: dict[str, Any], scheme: str) -> None:
    (server,) = (each for each in answer["processes"] if each["kind"] == "server")
    server["degradations"] = [{"name": name, "since": ago(90, answer)} for name in ("behind", "object_store")]
    worker = {key: server[key] for key in ("version", "started_at", "reported_at", "lease_expires_at")}
    figures = {"jobs": 1, "max_jobs": 2}
    answer["processes"] += [
        worker | {"id": "w" * 70, "kind": "worker", "state": "draining", "lease_valid": True, "worker": figures}
    ]
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    shown(page, answer)
    for width in (1280, 640, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == []
        assert overflow(page) == 0
