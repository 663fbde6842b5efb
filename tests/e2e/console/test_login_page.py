"""The login page in Chromium, on a service with keys: what a browser keeps, its errors, and the way back."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from stack.supervisor import Stack
from tests.e2e.console.conftest import Complaints, overflow, violations
from tests.e2e.console.keyed import Tenant, log_in, open_as

WRONG = "dk_" + "w" * 43


@pytest.fixture(scope="module")
def stack(keyed_stack: Stack) -> Stack:
    return keyed_stack


@pytest.fixture
def tenant(stack: Stack, rest: httpx.Client) -> Tenant:
    return Tenant(stack, rest)


def everything_that_a_script_reads(page: Page) -> str:
    return str(
        page.evaluate(
            """() => JSON.stringify([document.cookie, document.documentElement.outerHTML, location.href, history.state,
              {...localStorage}, {...sessionStorage},
              [...document.querySelectorAll("input")].map((one) => one.value)])"""
        )
    )


def test_a_key_opens_the_page_that_was_asked_for_and_stays_nowhere(
    page: Page, context: BrowserContext, tenant: Tenant
) -> None:
    _, secret = tenant.make_key("browser")
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    page.goto("jobs.html?status=failed")
    expect(page).to_have_url(re.compile(r"/console/login\.html\?next=jobs\.html"))
    log_in(page, secret)
    expect(page).to_have_url(re.compile(r"/console/jobs\.html\?status=failed$"), timeout=20_000)
    expect(page.get_by_label("Status")).to_have_value("failed")
    expect(page.get_by_text(tenant.name)).to_be_visible()
    assert secret not in everything_that_a_script_reads(page)
    # The key is in one request, and in none of its address.
    with_key = [each for each in sent if secret in str(each.all_headers()) + each.url + (each.post_data or "")]
    assert [(each.method, urlsplit(each.url).path) for each in with_key] == [("POST", "/v1/login")]
    assert secret not in with_key[0].url
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"]) == ("__Host-dalston", True, True)
    assert cookie["sameSite"] == "Strict"
    assert page.evaluate("document.cookie") == ""
    # The login page is not in the history: Back leads to what was before the console.
    page.go_back()
    expect(page).to_have_url("about:blank")


def test_a_wrong_key_is_refused_in_a_sentence(
    page: Page, tenant: Tenant, complaints: Complaints, shoot: Callable[[Page, str], None]
) -> None:
    page.goto("login.html")
    shoot(page, "login")
    log_in(page, WRONG)
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid: it is wrong, revoked or expired.")
    field = page.get_by_label("API key")
    expect(field).to_have_value("")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    shoot(page, "login-refused")
    log_in(page, tenant.secret)
    expect(page.get_by_role("heading", name="Sessions", level=1)).to_be_visible(timeout=20_000)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "Enter an API key."),
        ("hunter2", "This is not a whole key"),
        (WRONG[:-1], "This is not a whole key"),
        ("dt_" + "w" * 43, "This is a token for one live session."),
    ],
)
def test_what_is_no_key_is_not_sent(page: Page, tenant: Tenant, text: str, shown: str) -> None:
    page.goto("login.html")
    expect(page.get_by_label("API key")).to_be_focused()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    log_in(page, text)
    expect(page.get_by_role("alert")).to_contain_text(shown)
    assert sent == []


def test_a_key_may_be_pasted_with_its_scheme_and_be_looked_at(page: Page, tenant: Tenant) -> None:
    page.goto("login.html")
    field = page.get_by_label("API key")
    expect(field).to_have_attribute("type", "password")
    expect(field).to_have_attribute("autocomplete", "current-password")
    field.fill(f"  Bearer {tenant.secret}\n")
    page.get_by_role("button", name="Show the key").click()
    expect(field).to_have_attribute("type", "text")
    page.get_by_role("button", name="Hide the key").click()
    expect(field).to_have_attribute("type", "password")
    field.press("Enter")
    expect(page.get_by_role("heading", name="Sessions", level=1)).to_be_visible(timeout=20_000)


def test_too_many_attempts_have_to_wait_and_say_how_long(page: Page, tenant: Tenant, complaints: Complaints) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMITED"}

    def refuse(route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        body = {"code": 8, "message": "too many attempts", "details": [info]}
        return route.fulfill(status=429, json=body, headers={"retry-after": "2"})

    page.goto("login.html")
    expect(page.get_by_label("API key")).to_be_focused()
    page.route("**/v1/login", refuse)
    log_in(page, tenant.secret)
    expect(page.get_by_role("alert")).to_contain_text(
        "Too many attempts came from your address. Try again in 2 seconds."
    )
    expect(page.get_by_role("button", name="Log in")).to_be_disabled()
    expect(page.get_by_role("alert")).to_contain_text("You can try again now.", timeout=20_000)
    page.unroute("**/v1/login")
    # The key was not judged, so it need not be found again.
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Sessions", level=1)).to_be_visible(timeout=20_000)


def test_a_revoked_key_leads_to_the_login_and_back_to_the_same_page(
    page: Page, tenant: Tenant, complaints: Complaints
) -> None:
    complaints.expect("401 (Unauthorized)")
    first, secret = tenant.make_key("first browser")
    open_as(page, secret, "jobs.html?kind=upload")
    tenant.revoke(first)
    # The service refuses it within five seconds, and the page asks at least every eight.
    expect(page).to_have_url(re.compile(r"/login\.html\?next=jobs\.html"), timeout=30_000)
    _, other = tenant.make_key("second browser")
    log_in(page, other)
    expect(page).to_have_url(re.compile(r"/jobs\.html\?kind=upload$"), timeout=20_000)


def test_a_login_that_exists_is_shown(page: Page, tenant: Tenant, complaints: Complaints) -> None:
    complaints.expect("401 (Unauthorized)")  # the list may be asked for before the page leads to the login
    open_as(page, tenant.secret, "./")
    page.goto("login.html?next=jobs.html")
    expect(page.get_by_text(f"You are logged in with the key first of {tenant.name}")).to_be_visible()
    page.get_by_role("button", name="Log in with another key").click()
    expect(page.get_by_label("API key")).to_be_focused()
    page.reload()
    page.get_by_role("link", name="Continue").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()


def test_logging_out_ends_the_login(
    page: Page, context: BrowserContext, tenant: Tenant, complaints: Complaints
) -> None:
    complaints.expect("401 (Unauthorized)")  # the list may be asked for before the page leads to the login
    open_as(page, tenant.secret, "./")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in to Dalston")).to_be_visible()
    assert context.cookies() == []


def test_another_tab_that_has_logged_in_opens_this_one(page: Page, context: BrowserContext, tenant: Tenant) -> None:
    page.goto("jobs.html")
    expect(page.get_by_label("API key")).to_be_visible()
    open_as(context.new_page(), tenant.secret, "./")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page).to_have_url(re.compile(r"/jobs\.html$"), timeout=20_000)


@pytest.mark.parametrize(
    ("wanted", "leads"),
    [
        ("jobs.html?status=failed#a", "/console/jobs.html?status=failed#a"),
        ("session.html%3Fid%3Dsess_1", "/console/session.html?id=sess_1"),
        ("", "/console/"),
        ("login.html?next=x", "/console/"),
        ("//evil.example/console/", "/console/"),
        ("%5C%5Cevil.example/console/", "/console/"),
        ("https://evil.example/console/", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("/v1/realtime/sessions", "/console/"),
        ("../v1/keys", "/console/"),
        ("http://[", "/console/"),
    ],
)
def test_a_login_leads_to_pages_of_the_console_only(page: Page, stack: Stack, wanted: str, leads: str) -> None:
    page.goto("login.html")
    call = "async (search) => (await import('./login.js')).destination(search)"
    found = page.evaluate(call, f"?next={wanted.replace('#', '%23').replace('&', '%26')}")
    assert found == f"http://localhost:{stack.port}{leads}"


def test_over_plain_http_on_another_host_no_key_is_asked_for(
    page: Page, stack: Stack, tenant: Tenant, complaints: Complaints
) -> None:
    # Of plain HTTP the browser reports the same as the page.
    complaints.expect("Cross-Origin-Opener-Policy")

    def from_the_service(route: Route) -> None:
        there = route.request.url.replace("http://console.test", f"http://localhost:{stack.port}")
        route.fulfill(response=route.fetch(url=there))

    page.route("http://console.test/**", from_the_service)
    page.goto("http://console.test/console/login.html")
    expect(page.get_by_role("alert")).to_contain_text("This page came over plain HTTP, so it asks for no key.")
    expect(page.get_by_label("API key")).to_have_count(0)
    expect(page.get_by_role("link", name="https://console.test")).to_be_visible()


def test_a_browser_that_does_not_keep_the_cookie_shows_the_reason(
    page: Page, context: BrowserContext, tenant: Tenant
) -> None:
    def without_cookie(route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        answer = route.fetch()
        headers = {name: value for name, value in answer.headers.items() if name != "set-cookie"}
        context.clear_cookies()
        return route.fulfill(response=answer, headers=headers)

    page.goto("login.html")
    page.route("**/v1/login", without_cookie)
    log_in(page, tenant.secret)
    expect(page.get_by_role("alert")).to_contain_text("The key is right, but this browser did not keep the login.")
    assert tenant.secret not in everything_that_a_script_reads(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(page: Page, tenant: Tenant, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto("login.html")
    expect(page.get_by_label("API key")).to_be_visible()
    for width in (1280, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == []
        assert overflow(page) == 0
    log_in(page, "short")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert violations(page) == []


def test_what_a_key_does_not_allow_is_not_shown(page: Page, tenant: Tenant, rest: httpx.Client) -> None:
    _, secret = tenant.make_key("reader", "sessions:read")
    open_as(page, secret, "jobs.html")
    # Without the scopes there is nothing to press: no upload, and no cancel.
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("button", name="Choose files")).to_have_count(0)
    answer: Any = page.evaluate("fetch('/v1/login').then((one) => one.json())")
    assert answer["scopes"] == ["sessions:read"]
