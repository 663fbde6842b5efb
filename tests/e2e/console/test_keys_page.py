"""The keys page in Chromium: keys are made, seen once, revoked, and their logins ended."""

import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from stack.supervisor import Stack
from tests.e2e.console.conftest import Complaints, overflow, violations
from tests.e2e.console.keyed import Tenant, open_as


@pytest.fixture(scope="module")
def stack(keyed_stack: Stack) -> Stack:
    return keyed_stack


@pytest.fixture
def tenant(stack: Stack, rest: httpx.Client) -> Tenant:
    return Tenant(stack, rest)


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))


def open_keys(page: Page, tenant: Tenant) -> None:
    open_as(page, tenant.secret, "keys.html")
    expect(row(page, "first")).to_contain_text("Active", timeout=20_000)


def test_a_key_is_made_and_its_secret_shown_once(
    page: Page,
    context: BrowserContext,
    tenant: Tenant,
    rest: httpx.Client,
    shoot: Callable[[Page, str], None],
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_keys(page, tenant)
    page.get_by_role("button", name="New key").click()
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_text("Give the key a name")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("reporting")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_text("Choose at least one thing")).to_be_visible()
    page.get_by_role("checkbox", name="sessions:read").check()
    page.get_by_label("It expires after").select_option(label="90 days")
    shoot(page, "keys-new")
    page.get_by_role("button", name="Make the key").click()
    field = page.get_by_role("textbox", name="Secret")
    expect(field).to_be_visible(timeout=20_000)
    secret = field.input_value()
    assert re.fullmatch(r"dk_[\w-]{43}", secret)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    # Escape does not lose it.
    page.keyboard.press("Escape")
    expect(field).to_have_value(secret)
    shoot(page, "keys-secret")
    page.get_by_role("button", name="I have stored it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert secret not in page.content()
    line = row(page, "reporting")
    expect(line).to_contain_text("sessions:read")
    expect(line).to_contain_text("by first")
    expect(line).to_contain_text("Until")
    key = tenant.keys()["reporting"]
    assert (key["scopes"], key["prefix"]) == (["sessions:read"], secret[:11])
    headers = {"authorization": f"Bearer {secret}"}
    assert rest.get("/v1/realtime/sessions", headers=headers).status_code == 200


def test_the_dialog_of_a_revocation_names_what_ends(
    page: Page, context: BrowserContext, tenant: Tenant, rest: httpx.Client, shoot: Callable[[Page, str], None]
) -> None:
    _, secret = tenant.make_key("old recorder")
    rest.post("/v1/login", headers={"authorization": f"Bearer {secret}"})
    rest.cookies.clear()
    made = rest.post(
        "/v1/keys", headers={"authorization": f"Bearer {secret}"}, json={"name": "child", "scopes": ["realtime"]}
    )
    assert made.status_code == 200
    open_keys(page, tenant)
    row(page, "old recorder").get_by_role("button", name="Revoke old recorder").click()
    dialog = page.get_by_role("dialog", name="Revoke “old recorder”?")
    expect(dialog).to_contain_text("1 login of browsers ends.")
    expect(dialog).to_contain_text("Live sessions and watches that were begun with it end within 10 seconds.")
    expect(dialog).to_contain_text("Keys that it made stay valid: child.")
    shoot(page, "keys-revoke")
    page.keyboard.press("Escape")
    expect(row(page, "old recorder")).to_contain_text("Active")
    row(page, "old recorder").get_by_role("button", name="Revoke old recorder").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(row(page, "old recorder")).to_contain_text("Revoked")
    expect(row(page, "old recorder").get_by_role("button")).to_have_count(0)
    assert tenant.keys()["old recorder"]["revoked_at"]


def test_logins_are_under_their_key_and_end_there(
    page: Page, tenant: Tenant, rest: httpx.Client, shoot: Callable[[Page, str], None]
) -> None:
    agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile/15E148 Safari/604.1"
    answer = rest.post("/v1/login", headers={**tenant.headers, "user-agent": agent})
    rest.cookies.clear()
    open_keys(page, tenant)
    button = page.get_by_role("button", name="Logins of first")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    phone = page.get_by_role("listitem").filter(has_text="Safari on iPhone")
    expect(phone).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="this browser")).to_contain_text("Chrome on Linux")
    shoot(page, "keys")
    phone.get_by_role("button", name="End").click()
    expect(phone).to_have_count(0)
    (key,) = tenant.keys().values()
    left = rest.get(f"/v1/keys/{key['id']}/logins", headers=tenant.headers).json()["logins"]
    assert answer.json()["id"] not in [login["id"] for login in left]
    page.get_by_role("button", name="Log out here").click()
    page.get_by_role("button", name="Log out", exact=True).last.click()
    expect(page.get_by_role("heading", name="Log in to Dalston")).to_be_visible(timeout=20_000)


def test_a_key_without_admin_sees_which_scope_it_needs(page: Page, tenant: Tenant) -> None:
    _, secret = tenant.make_key("reader", "sessions:read")
    open_as(page, secret, "keys.html")
    expect(page.get_by_role("heading", name="This key may not manage keys")).to_be_visible()
    expect(page.get_by_text("“reader” allows sessions:read.")).to_be_visible()
    expect(page.get_by_role("button", name="New key")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(page: Page, tenant: Tenant, scheme: str) -> None:
    tenant.make_key("a name of a hundred characters " + "x" * 60, "realtime", expires_in_seconds=86_400)
    gone, _ = tenant.make_key("gone", "realtime")
    tenant.revoke(gone)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    open_keys(page, tenant)
    page.get_by_role("button", name="Logins of first").click()
    expect(page.get_by_text("this browser")).to_be_visible()
    for width in (1280, 640, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == []
        assert overflow(page) == 0
    page.get_by_role("button", name="New key").click()
    assert violations(page) == []


def test_keys_that_cannot_be_read_are_not_an_empty_list(page: Page, tenant: Tenant, complaints: Complaints) -> None:
    complaints.expect("net::ERR_CONNECTION_REFUSED")
    open_keys(page, tenant)
    page.route("**/v1/keys?*", lambda route: route.abort("connectionrefused"))
    expect(page.locator(".stale")).to_contain_text("The service cannot be reached.", timeout=20_000)
    expect(row(page, "first")).to_be_visible()
