"""Which requests with the cookie of a login get its authorization, and which requests of web pages are refused."""

import os
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import SessionServicer, backend
from tests.integration.envoy.conftest import Front

LOGIN = "dl_" + "L" * 43
COOKIE = f"__Host-dalston={LOGIN}"
SAME = "sec-fetch-site: same-origin"
SESSIONS = "/v1/realtime/sessions"
END = f"{SESSIONS}/sess_1/end"
LISTED = "https://app.example.com"


class Client:
    """curl, which speaks either protocol."""

    def __init__(self, url: str, protocol: str) -> None:
        self._url = url
        self._protocol = protocol

    def request(self, method: str, path: str, *headers: str, content: bytes = b"") -> int:
        """Sends a request with headers as `name: value`; returns the status of its answer."""
        command = ["curl", "--silent", "--max-time", "10", "--output", os.devnull, "--write-out", "%{http_code}"]
        command += ["--head"] if method == "HEAD" else ["--request", method]
        command += ["--data-binary", "@-"] if content else []
        command += [self._protocol, *(f"-H{each}" for each in headers), self._url + path]
        return int(subprocess.run(command, input=content, capture_output=True, check=True).stdout)

    def get(self, path: str, *headers: str) -> int:
        return self.request("GET", path, *headers)


@pytest.fixture(params=["--http1.1", "--http2-prior-knowledge"])
def client(front: Front, request: pytest.FixtureRequest) -> Client:
    return Client(front.http, request.param)


def seen(front: Front) -> tuple[object, object]:
    """What the server has got of the last request: its authorization, and whether it is of a login."""
    metadata = front.sessions.metadata[-1]
    assert not any("cookie" in name for name in metadata)
    return metadata.get("authorization"), metadata.get("x-dalston-login")


ACCEPTED = (f"Bearer {LOGIN}", "1")
NOTHING = (None, None)


@pytest.mark.parametrize(
    ("method", "site", "expected"),
    [
        ("GET", "same-origin", ACCEPTED),
        ("GET", "none", ACCEPTED),
        ("GET", "same-site", NOTHING),
        ("GET", "cross-site", NOTHING),
        ("GET", None, NOTHING),
        ("GET", "same-origin, cross-site", NOTHING),
        ("POST", "same-origin", ACCEPTED),
        ("POST", "none", NOTHING),
        ("POST", None, NOTHING),
    ],
)
def test_only_pages_of_the_service_use_the_cookie(
    front: Front, client: Client, method: str, site: str | None, expected: tuple[object, object]
) -> None:
    headers = [f"cookie: {COOKIE}", *([] if site is None else [f"sec-fetch-site: {site}"])]
    assert client.request(method, SESSIONS if method == "GET" else END, *headers) == 200
    assert seen(front) == expected


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/sess_1/audio"])
def test_head_reads_as_get_does(front: Front, client: Client, path: str) -> None:
    client.request("HEAD", path, f"cookie: {COOKIE}", "sec-fetch-site: none")
    assert seen(front) == ACCEPTED


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "other=1",
        f"dalston={LOGIN}",
        f"x__Host-dalston={LOGIN}",
        "__Host-dalston=",
        "__Host-dalston=dk_" + "k" * 43,
        f"__Host-dalston={LOGIN}x",
        f"__Host-dalston=dl_{'L' * 42}",
        # A browser takes these from any host of the domain, and over plain HTTP.
        f"__Host -dalston={LOGIN}",
        f"__Host-dal\tston={LOGIN}",
        f"a=1;\t__Host-dalston={LOGIN}",
        f"__Host-dalston ={LOGIN}",
        f"a=1;  __Host-dalston={LOGIN}",
        f"=__Host-dalston={LOGIN}",
        f"__host-dalston={LOGIN}",
        f"__Host-dalston={LOGIN[:9]} {LOGIN[9:]}",
        f'__Host-dalston={LOGIN[:-1]}"',
    ],
)
def test_other_cookies_are_no_login(front: Front, client: Client, cookie: str) -> None:
    client.get(SESSIONS, f"cookie: {cookie}", SAME)
    assert seen(front) == NOTHING


def test_the_cookie_is_found_among_others(front: Front, client: Client) -> None:
    for cookies in ([f"a=1; {COOKIE}; b=2"], ["a=1", COOKIE, "b=2"], ["__Host-dalston=old", COOKIE]):
        client.get(SESSIONS, SAME, *(f"cookie: {each}" for each in cookies))
        assert seen(front) == ACCEPTED


def test_a_key_goes_before_the_cookie(front: Front, client: Client) -> None:
    client.get(SESSIONS, f"cookie: {COOKIE}", SAME, "authorization: Bearer dk_")
    assert seen(front) == ("Bearer dk_", None)


def test_clients_cannot_present_a_login_by_hand(front: Front, client: Client) -> None:
    client.get(SESSIONS, f"authorization: Bearer {LOGIN}", "x-dalston-login: 1")
    assert seen(front) == (f"Bearer {LOGIN}", None)


def test_grpc_has_no_logins(front: Front, client: Client) -> None:
    path = "/dalston.v1.SessionService/ListSessions"
    web = "content-type: application/grpc-web+proto"
    client.request("POST", path, f"cookie: {COOKIE}", SAME, "x-dalston-login: 1", web, content=bytes(5))
    assert seen(front) == NOTHING


def test_downloads_take_the_cookie(front: Front, client: Client) -> None:
    assert client.get(f"{SESSIONS}/sess_1/audio", f"cookie: {COOKIE}", SAME, "range: bytes=0-59999") == 206
    assert seen(front) == ACCEPTED


def test_a_login_is_not_in_the_access_log(front: Front, client: Client) -> None:
    client.get(SESSIONS, f"cookie: {COOKIE}", SAME)
    assert LOGIN not in front.logged()


# Pages of other origins.


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, SessionServicer]]:
    """The address of an Envoy that lists the origin of a page, and its server."""
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), origins=("https://b.example", LISTED))
    with backend(endpoints.server_port) as sessions, envoy(tmp_path_factory.mktemp("envoy"), endpoints):
        url = f"http://127.0.0.1:{endpoints.port}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=3), trust_env=False) as http:
            while http.get(f"{url}{SESSIONS}").status_code != 200:
                pass
        yield url, sessions


@pytest.mark.parametrize(
    ("headers", "is_served"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://whatever"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, False),
        ({"sec-fetch-site": "same-site", "origin": "https://evil.example"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "null"}, False),
        ({"sec-fetch-site": "cross-site", "origin": LISTED}, True),
        ({"sec-fetch-site": "same-site", "origin": LISTED}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://app.example.co"}, False),
        ({"sec-fetch-site": "cross-site", "origin": f"{LISTED} https://b.example"}, False),
        # A browser on plain HTTP to another host than localhost, which sends the origin only.
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": LISTED}, True),
    ],
)
def test_what_is_more_than_a_read_is_refused_to_pages_of_other_origins(
    listing: tuple[str, SessionServicer], headers: dict[str, str], is_served: bool
) -> None:
    url, sessions = listing
    before = len(sessions.requests)
    simple = headers | {"content-type": "text/plain"}
    answer = httpx.post(f"{url}{END}", headers=simple, content="", trust_env=False)
    assert answer.status_code == (200 if is_served else 403)
    assert (len(sessions.requests) > before) is is_served
    if not is_served:
        status = answer.json()
        assert status["code"] == 7
        assert "DALSTON_ALLOWED_ORIGINS" in status["message"]
        assert status["details"][0]["reason"] == "ORIGIN_NOT_ALLOWED"
    deleted = httpx.delete(f"{url}{SESSIONS}/sess_1", headers=headers, trust_env=False)
    assert deleted.status_code == (409 if is_served else 403)


def test_a_page_of_the_service_on_plain_http_may_send_more_than_reads(listing: tuple[str, SessionServicer]) -> None:
    url, _ = listing
    assert httpx.post(f"{url}{END}", headers={"origin": url.upper()}, trust_env=False).status_code == 200
    another = url.rpartition(":")[0] + ":1"
    assert httpx.post(f"{url}{END}", headers={"origin": another}, trust_env=False).status_code == 403


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://dalston.example", "dalston.example:80", 200),
        ("https://dalston.example", "dalston.example:443", 200),
        ("https://dalston.example", "dalston.example", 200),
        ("http://dalston.example:8080", "dalston.example:8080", 200),
        ("http://dalston.example", "dalston.example:443", 403),
        ("http://dalston.example:8080", "dalston.example", 403),
        ("http://dalston.example", "10.0.0.7:8000", 403),
        ("dalston.example", "dalston.example", 403),
    ],
)
def test_a_proxy_may_name_the_port_of_the_scheme(
    listing: tuple[str, SessionServicer], origin: str, host: str, status: int
) -> None:
    answer = httpx.post(f"{listing[0]}{END}", headers={"origin": origin, "host": host}, trust_env=False)
    assert answer.status_code == status


@pytest.mark.parametrize("proto", ["http", "https"])
def test_behind_a_proxy_with_tls_only_the_statement_of_the_browser_counts(
    listing: tuple[str, SessionServicer], proto: str
) -> None:
    """Such a browser always sends it, and the proxy may have replaced the host."""
    headers = {"origin": "https://dalston.example", "host": "10.0.0.7:8000", "x-forwarded-proto": proto}
    for site, status in (("same-origin", 200), ("cross-site", 403)):
        answer = httpx.post(f"{listing[0]}{END}", headers=headers | {"sec-fetch-site": site}, trust_env=False)
        assert answer.status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_origins_may_read(listing: tuple[str, SessionServicer], site: str) -> None:
    headers = {"sec-fetch-site": site, "origin": "https://evil.example"}
    answer = httpx.get(f"{listing[0]}{SESSIONS}", headers=headers, trust_env=False)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_files_and_grpc_web_are_refused_in_their_own_shapes(listing: tuple[str, SessionServicer]) -> None:
    headers = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    answer = httpx.post(
        f"{listing[0]}/v1/audio/transcriptions", headers=headers, files={"file": b"RIFF"}, trust_env=False
    )
    assert answer.status_code == 403
    assert "DALSTON_ALLOWED_ORIGINS" in answer.json()["error"]["message"]
    web = headers | {"content-type": "application/grpc-web+proto"}
    path = f"{listing[0]}/dalston.v1.SessionService/ListSessions"
    refused = httpx.post(path, content=bytes(5), headers=web, trust_env=False)
    assert refused.headers["grpc-status"] == "7"


@pytest.mark.parametrize("body", ['{"key": "dk_"}', '{"key_id": ""}'])
def test_the_body_of_a_login_has_no_fields(front: Front, http: httpx.Client, body: str) -> None:
    answer = http.post("/v1/login", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "not known here" in answer.json()["message"]


@pytest.mark.parametrize("name", ["key_id", "login_id", "loginId"])
def test_the_query_may_not_name_what_the_path_does(http: httpx.Client, name: str) -> None:
    answer = http.delete(f"/v1/keys/key_1/logins/login_1?{name}=other")
    assert answer.status_code == 400
    assert "the query may not" in answer.json()["message"]
