"""gRPC-Web from pages of other hosts in a real browser, which enforces CORS."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from dalston.v1 import session_pb2
from playwright.sync_api import Page, sync_playwright

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import backend

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SERVICE = "/dalston.v1.SessionService"
# The headers of Connect-Web and grpc-web; all but the last cause a preflight.
HEADERS = {
    "content-type": "application/grpc-web+proto",
    "x-grpc-web": "1",
    "x-user-agent": "connect-es/2.0.0",
    "connect-protocol-version": "1",
    "grpc-timeout": "5S",
    "authorization": "Bearer key",
    "accept": "application/grpc-web+proto",
}
CALL = """async ([url, headers, message]) => {
  const frame = new Uint8Array(5 + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, 5);
  try {
    const answer = await fetch(url, {method: "POST", headers, body: frame});
    const shown = Object.fromEntries(answer.headers);
    return {status: answer.status, headers: shown, body: Array.from(new Uint8Array(await answer.arrayBuffer()))};
  } catch (error) {
    return {error: String(error)};
  }
}"""


@contextmanager
def page_server() -> Iterator[str]:
    """Serves an empty page and yields its origin."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>a page</title>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """The address of Envoy, the origin of a page that it lists, and that of one that it does not."""
    with page_server() as listed, page_server() as other:
        endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), origins=(listed,))
        with backend(endpoints.server_port), envoy(tmp_path_factory.mktemp("envoy"), endpoints):
            url = f"http://127.0.0.1:{endpoints.port}"
            with httpx.Client(transport=httpx.HTTPTransport(retries=3), trust_env=False) as http:
                while http.get(f"{url}/v1/realtime/sessions").status_code != 200:
                    pass
            yield url, listed, other


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def call(page: Page, url: str, message: bytes = b"", **more: str) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(CALL, [url, HEADERS | more, list(message)])
    return answer


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")
def test_a_listed_page_calls_by_grpc_web_and_reads_answers_and_errors(page: Page, place: tuple[str, str, str]) -> None:
    url, listed, _ = place
    page.goto(listed)
    answer = call(page, f"{url}{SERVICE}/ListSessions")
    assert answer["status"] == 200
    body = bytes(answer["body"])
    size = int.from_bytes(body[1:5], "big")
    assert session_pb2.ListSessionsResponse.FromString(body[5 : 5 + size]).sessions[0].id == "sess_1"
    assert b"grpc-status:0" in body[5 + size :]

    request = session_pb2.GetSessionRequest(session_id="sess_2").SerializeToString()
    refused = call(page, f"{url}{SERVICE}/GetSession", request)
    assert refused["headers"]["grpc-status"] == "5"
    assert refused["headers"]["grpc-message"]
    assert refused["headers"]["grpc-status-details-bin"]

    # The page can read refusals by Envoy itself, too.
    too_long = call(page, f"{url}{SERVICE}/ListSessions", bytes(70_000))
    assert too_long["headers"]["grpc-status"] == "3"
    unknown = call(page, f"{url}{SERVICE}/Nothing")
    assert unknown["headers"]["grpc-status"] == "12"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")
def test_another_page_reads_nothing(page: Page, place: tuple[str, str, str]) -> None:
    url, _, other = place
    page.goto(other)
    assert "Failed to fetch" in call(page, f"{url}{SERVICE}/ListSessions")["error"]


@pytest.mark.parametrize("path", [f"{SERVICE}/ListSessions", "/dalston.v1.TranscriptionService/Transcribe"])
def test_a_preflight_is_answered_for_listed_pages_only(place: tuple[str, str, str], path: str) -> None:
    url, listed, other = place
    asked = {"access-control-request-method": "POST", "access-control-request-headers": ", ".join(HEADERS)}
    answer = httpx.options(url + path, headers=asked | {"origin": listed}, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == listed
    allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert set(HEADERS) - {"accept"} <= allowed
    refused = httpx.options(url + path, headers=asked | {"origin": other}, trust_env=False)
    assert refused.status_code == 404
    assert "access-control-allow-origin" not in refused.headers
    assert refused.json()["details"][0]["reason"] == "PATH_NOT_FOUND"


def test_a_page_may_read_the_headers_of_downloads(place: tuple[str, str, str]) -> None:
    url, listed, _ = place
    path = "/v1/realtime/sessions/sess_01990000000070008000000000000001/audio"
    answer = httpx.get(url + path, headers={"origin": listed}, trust_env=False)
    exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"etag", "content-range", "content-disposition", "x-transcript-version"} <= exposed
