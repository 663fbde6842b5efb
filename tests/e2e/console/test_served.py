"""What Envoy serves below /console/, and with which headers."""

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from stack.supervisor import Stack

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {
    "": "text/html; charset=utf-8",
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "lib/dom.js": "application/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@pytest.mark.parametrize("name", TYPES)
def test_files_have_their_type_and_the_headers_of_the_console(rest: httpx.Client, name: str) -> None:
    answer = rest.get(f"/console/{name}?a=%2Fb")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[name]
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["permissions-policy"].startswith("microphone=(self)")
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_files_are_compressed_and_complete(rest: httpx.Client) -> None:
    packed = rest.get("/console/style.css", headers={"accept-encoding": "gzip"})
    plain = rest.get("/console/style.css", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(plain.headers["content-length"]) == len(plain.content)
    head = rest.head("/console/style.css", headers={"accept-encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")


def test_the_root_leads_browsers_to_the_console_and_others_nowhere(rest: httpx.Client) -> None:
    answer = rest.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    # Without scheme and host, which differ behind a proxy.
    assert (answer.status_code, answer.headers["location"]) == (302, "/console/")
    assert rest.get("/console").headers["location"] == "/console/"
    other = rest.get("/", headers={"accept": "*/*"})
    assert other.status_code == 404
    assert other.json()["details"][0]["reason"] == "PATH_NOT_FOUND"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/nothing.js", 404),
        ("/console/lib/", 403),
        ("/console/%2e%2e/envoy/envoy.yaml", 404),
        ("/console/..%2fenvoy/envoy.yaml", 400),
        ("/console/lib/%252e%252e/style.css", 404),
        ("/consolex", 404),
    ],
)
def test_what_is_no_file_is_an_error_as_json(rest: httpx.Client, path: str, status: int) -> None:
    answer = rest.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["message"]


def test_files_are_only_read(rest: httpx.Client) -> None:
    answer = rest.post("/console/index.html", content=b"x")
    assert answer.status_code == 405
    assert answer.json()["code"] == 3


def test_a_browser_comes_from_the_root_to_the_sessions(page: Page, context: BrowserContext, stack: Stack) -> None:
    page.goto(f"http://localhost:{stack.port}/")
    expect(page).to_have_url(f"http://localhost:{stack.port}/console/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")
    expect(page.get_by_role("link", name="Sessions")).to_have_attribute("aria-current", "page")
