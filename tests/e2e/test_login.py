"""Logins of browsers on the whole stack: the cookie, what it opens, and how it ends."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from dalston.v1 import key_pb2, key_pb2_grpc
from playwright.async_api import Page, async_playwright

from server.rpc.logins import COOKIE
from tests.e2e.harness import EVERYTHING, STORED, Harness, bearer, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOGIN = "/v1/login"
SESSIONS = "/v1/realtime/sessions"
SAME = {"sec-fetch-site": "same-origin"}
UNKNOWN_LOGIN = "dl_" + "n" * 43


class Browser:
    """Requests as those of a page of the service."""

    def __init__(self, harness: Harness, secret: str, login: dict[str, Any], cookie: str) -> None:
        self._http = harness.http
        self.secret = secret
        self.login = login
        self.cookie = cookie

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = SAME | {"cookie": f"{COOKIE}={self.secret}"} | more.pop("headers", {})
        return await self._http.request(method, path, headers=headers, **more)

    async def status(self, path: str = LOGIN) -> int:
        return (await self.request("GET", path)).status_code


async def log_in(harness: Harness, key: str, user_agent: str = "a browser") -> Browser:
    answer = await harness.http.post(LOGIN, headers=bearer(key) | SAME | {"user-agent": user_agent})
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["set-cookie"]
    secret = cookie.partition("=")[2].partition(";")[0]
    harness.http.cookies.clear()
    return Browser(harness, secret, answer.json(), cookie)


@pytest.fixture
async def key(harness: Harness) -> dict[str, Any]:
    return await harness.make_key(*EVERYTHING)


async def test_a_key_becomes_a_cookie_that_no_script_can_read(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"], "Mozilla/5.0 Test")
    found = re.fullmatch(
        r"__Host-dalston=(dl_[\w-]{43}); Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=(\d+)", browser.cookie
    )
    assert found is not None
    assert 43_100 < int(found[2]) <= 43_200
    login = browser.login
    assert re.fullmatch("login_[0-9a-f]{32}", login["id"])
    assert (login["tenant"], login["authentication"], login["user_agent"]) == ("acme", True, "Mozilla/5.0 Test")
    assert login["key"]["id"] == key["key"]["id"]
    assert sorted(login["scopes"]) == sorted(EVERYTHING)
    assert browser.secret not in str(login)
    lasts = datetime.fromisoformat(login["expires_at"]) - datetime.fromisoformat(login["created_at"])
    assert lasts == timedelta(hours=12)


async def test_get_login_names_the_caller_with_a_login_and_with_a_key(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    answer = (await browser.request("GET", LOGIN)).json()
    assert answer["id"] == browser.login["id"]
    with_key = (await harness.http.get(LOGIN, headers=bearer(key["secret"]))).json()
    assert (with_key["id"], with_key["key"]["id"], with_key["tenant"]) == ("", key["key"]["id"], "acme")
    refused = await harness.http.get(LOGIN)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_a_login_reads_writes_and_makes_keys_and_tokens(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    assert await browser.status(SESSIONS) == 200
    assert await browser.status(f"{SESSIONS}/{harness.sessions['completed']}/audio") == 200
    made = await browser.request("POST", "/v1/keys", json={"name": "made", "scopes": ["realtime"]})
    assert made.json()["key"]["created_by"] == key["key"]["id"]
    assert (await browser.request("DELETE", f"/v1/keys/{made.json()['key']['id']}")).status_code == 200
    token = await browser.request("POST", "/v1/realtime/tokens", json={})
    assert token.status_code == 200
    code, messages = await harness.socket(f"token={token.json()['token']}")
    assert (code, messages[0]["type"]) == (1000, "session.begin")


async def test_a_login_has_the_scopes_of_its_key(harness: Harness) -> None:
    reader = await harness.make_key("sessions:read")
    browser = await log_in(harness, reader["secret"])
    assert browser.login["scopes"] == ["sessions:read"]
    assert await browser.status(SESSIONS) == 200
    assert await browser.status("/v1/keys") == 403
    assert await browser.status(f"/v1/keys/{reader['key']['id']}/logins") == 403


async def test_models_and_files_take_the_cookie(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    assert await browser.status("/v1/models") == 200
    broken = await browser.request("POST", "/v1/audio/transcriptions", files={"file": b"RIFF"}, data={"model": "none"})
    assert broken.status_code not in (401, 403)
    by_hand = bearer(browser.secret) | {"x-dalston-login": "1"}
    assert (await harness.http.get("/v1/models", headers=by_hand)).status_code == 401


async def test_a_login_makes_no_login(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    answer = await browser.request("POST", LOGIN)
    assert answer.status_code == 403
    assert "send the key" in answer.json()["message"]
    assert "set-cookie" not in answer.headers


async def test_a_stolen_secret_opens_nothing_by_hand(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    by_hand = bearer(browser.secret) | {"x-dalston-login": "1"}
    for path in (LOGIN, SESSIONS, "/v1/models", f"{SESSIONS}/{harness.sessions['completed']}/audio"):
        assert (await harness.http.get(path, headers=by_hand | SAME)).status_code == 401
    stub = key_pb2_grpc.KeyServiceStub(harness.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetLogin(key_pb2.GetLoginRequest(), metadata=tuple(by_hand.items()))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    code, messages = await harness.socket(f"api_key={browser.secret}")
    assert (code, messages[-1]["code"]) == (4001, "unauthenticated")


@pytest.mark.parametrize("site", ["cross-site", "same-site", None])
async def test_the_cookie_of_another_page_opens_nothing(
    harness: Harness, key: dict[str, Any], site: str | None
) -> None:
    browser = await log_in(harness, key["secret"])
    headers = {"cookie": f"{COOKIE}={browser.secret}"} | ({} if site is None else {"sec-fetch-site": site})
    assert (await harness.http.get(SESSIONS, headers=headers)).status_code == 401
    expected = 401 if site is None else 403
    assert (await harness.http.delete(LOGIN, headers=headers)).status_code == expected
    assert await browser.status() == 200


async def test_a_foreign_cookie_is_refused(harness: Harness) -> None:
    answer = await harness.http.get(LOGIN, headers=SAME | {"cookie": f"{COOKIE}={UNKNOWN_LOGIN}"})
    assert answer.status_code == 401


async def test_a_deleted_login_has_ended_at_once(harness: Harness, key: dict[str, Any]) -> None:
    browser, other = await log_in(harness, key["secret"]), await log_in(harness, key["secret"])
    assert await browser.status() == 200
    answer = await browser.request("DELETE", LOGIN)
    assert answer.status_code == 200
    assert answer.headers["set-cookie"] == f"{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"
    harness.http.cookies.clear()
    assert await browser.status() == 401
    assert await other.status() == 200
    with_key = await harness.http.delete(LOGIN, headers=bearer(key["secret"]))
    assert with_key.status_code == 200
    assert with_key.headers["set-cookie"].endswith("Max-Age=0")
    harness.http.cookies.clear()


async def test_an_expired_login_is_refused(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    login_id = UUID(hex=browser.login["id"].removeprefix("login_"))
    await harness.database.execute("UPDATE logins SET expires_at = now() WHERE id = $1", login_id)
    assert await browser.status() == 401


async def test_logins_of_a_key_are_listed_and_revoked(harness: Harness, key: dict[str, Any]) -> None:
    first, second = await log_in(harness, key["secret"], "one"), await log_in(harness, key["secret"], "two")
    path = f"/v1/keys/{key['key']['id']}/logins"
    listed = (await first.request("GET", path)).json()["logins"]
    assert [(each["id"], each["user_agent"]) for each in listed] == [
        (second.login["id"], "two"),
        (first.login["id"], "one"),
    ]
    assert await second.status() == 200
    assert (await first.request("DELETE", f"{path}/{second.login['id']}")).status_code == 200
    assert await second.status() == 401
    again = await first.request("DELETE", f"{path}/{second.login['id']}")
    assert (again.status_code, again.json()["details"][0]["reason"]) == (404, "LOGIN_NOT_FOUND")
    wrong = await first.request("DELETE", f"{path}/nonsense")
    assert (wrong.status_code, wrong.json()["details"][0]["metadata"]) == (400, {"parameter": "login_id"})


async def test_a_revoked_key_ends_its_logins_and_their_watches(harness: Harness, key: dict[str, Any]) -> None:
    browser = await log_in(harness, key["secret"])
    headers = SAME | {"cookie": f"{COOKIE}={browser.secret}"}
    lines = []
    async with harness.http.stream("GET", f"{SESSIONS}:watch", headers=headers, timeout=30) as watch:
        async for line in watch.aiter_lines():
            lines.append(line)
            if '"ready"' in line:
                revoked = await harness.http.delete(f"/v1/keys/{key['key']['id']}", headers=bearer(harness.admin))
                assert revoked.status_code == 200
                begun = time.monotonic()
    assert "unauthenticated" in lines[-1]
    assert time.monotonic() - begun < 25, "10 s on a machine that is not busy"
    assert await browser.status() == 401


async def test_the_log_names_the_login_but_never_its_secret(harness: Harness, key: dict[str, Any]) -> None:
    browser, other = await log_in(harness, key["secret"]), await log_in(harness, key["secret"])
    login_id, other_id = browser.login["id"], other.login["id"]
    await browser.status(f"{SESSIONS}/{harness.sessions['completed']}")
    await browser.request("DELETE", f"/v1/keys/{key['key']['id']}/logins/{other_id}")
    await browser.request("GET", f"{SESSIONS}?token={browser.secret}")
    await browser.request("DELETE", LOGIN)

    def lines() -> list[str]:
        return harness.stack.home.log("server").read_text().splitlines()

    async def is_logged() -> bool:
        return any("login ended" in line and login_id in line for line in lines())

    await until(is_logged)
    mine = [line for line in lines() if login_id in line]
    assert any("login created" in line for line in mine)
    assert any("login revoked" in line and other_id in line for line in mine)
    assert any("session accessed" in line and key["key"]["id"] in line for line in mine)
    for log in harness.stack.home.path.glob("logs/*"):
        text = log.read_text(errors="replace")
        assert browser.secret[3:] not in text, log.name
        assert other.secret[3:] not in text, log.name


# --- a real browser

PLAYS = """async (url) => {
  const audio = new Audio(url);
  audio.preload = "auto";
  await new Promise((done, failed) => { audio.oncanplaythrough = done; audio.onerror = () => failed(audio.error); });
  return audio.duration;
}"""
EVENT = """(url) => new Promise((done, failed) => {
  const source = new EventSource(url);
  source.onmessage = (event) => { source.close(); done(JSON.parse(event.data).type); };
  source.onerror = () => failed("the stream failed");
})"""
ASK = """async ([method, url, headers]) => {
  const answer = await fetch(url, {method, headers});
  return [answer.status, await answer.text()];
}"""


async def audio_of_a_second(harness: Harness, key: str) -> str:
    """The path of the audio of a new session that has ended."""
    async with harness.connect(STORED, key) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        await socket.send(bytes(32_000))
        await socket.send('{"type":"end"}')
        await socket.wait_closed()
    path = f"{SESSIONS}/{session_id}/audio"

    async def is_stored() -> bool:
        return (await harness.http.get(path, headers=bearer(key))).status_code == 200

    await until(is_stored)
    return path


@pytest.fixture
async def page(harness: Harness) -> AsyncIterator[Page]:
    """A page of the service with an empty document."""
    base = f"http://localhost:{httpx.URL(harness.stack.base_url).port}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.route(
            f"{base}/empty", lambda route: route.fulfill(content_type="text/html", body="<!doctype html><a download>")
        )
        await page.goto(f"{base}/empty")
        yield page
        await browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")
async def test_chromium_lists_downloads_watches_and_plays_by_the_cookie(
    harness: Harness, key: dict[str, Any], page: Page
) -> None:
    status, _ = await page.evaluate(ASK, ["GET", LOGIN, {}])
    assert status == 401
    status, body = await page.evaluate(ASK, ["POST", LOGIN, bearer(key["secret"])])
    assert status == 200, body
    assert await page.evaluate("document.cookie") == ""
    (cookie,) = await page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (COOKIE, True, True, "Strict")
    status, body = await page.evaluate(ASK, ["GET", SESSIONS, {}])
    assert status == 200
    assert harness.sessions["completed"] in body
    audio = f"{SESSIONS}/{harness.sessions['completed']}/audio"
    async with page.expect_download() as downloading:
        await page.evaluate("(url) => { const a = document.querySelector('a'); a.href = url; a.click(); }", audio)
    path = await (await downloading.value).path()
    assert (await asyncio.to_thread(path.read_bytes))[:4] == b"RIFF"
    assert await page.evaluate(EVENT, f"{SESSIONS}:watch") == "snapshot"
    assert await page.evaluate(PLAYS, await audio_of_a_second(harness, key["secret"])) == 1
    status, _ = await page.evaluate(ASK, ["DELETE", LOGIN, {}])
    assert status == 200
    assert await page.context.cookies() == []
    status, _ = await page.evaluate(ASK, ["GET", SESSIONS, {}])
    assert status == 401
