"""The microphone page with logins: a token for each connection, and a login that ends during a recording."""

from pathlib import Path

import httpx
import pytest
from playwright.async_api import expect
from pydantic import SecretStr

from domain.credentials import Scope
from persistence.config import PersistenceSettings
from persistence.postgres.api_keys import KeyStore
from persistence.postgres.database import open_database
from persistence.postgres.tenants import TenantStore
from stack.supervisor import Stack
from tests.e2e.conftest import Sample
from tests.e2e.console.conftest import CHROMIUM, Complaints
from tests.e2e.console.live_page import FAILED_CONNECTIONS, browser, recording, visit, write_speech
from tests.faults.proxy import Proxy

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def speech(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(sample, tmp_path_factory.mktemp("speech") / "speech.wav")


async def make_key(stack: Stack, *scopes: Scope) -> str:
    """Creates a key as the operator's command does, and its tenant. Returns the secret."""
    settings = PersistenceSettings(database_url=SecretStr(stack.database_url))
    async with open_database(settings) as database:
        tenant = await TenantStore(database).ensure("live", {})
        _, secret = await KeyStore(database).create(tenant.id, "test", scopes or ("realtime", "sessions:read"))
    return secret


_LOG_IN = """async (key) => {
  const { ok } = await fetch("/v1/login", { method: "POST", headers: { authorization: `Bearer ${key}` } });
  return ok;
}"""
_LOG_OUT = "async () => (await fetch('/v1/login', { method: 'DELETE' })).ok"


async def test_every_connection_has_a_token_of_its_own_and_a_login_that_is_over_ends_no_recording(
    keyed_stack: Stack, speech: Path, complaints: Complaints, tmp_path: Path
) -> None:
    for text in (*FAILED_CONNECTIONS, "status of 401"):
        complaints.expect(text)
    key = await make_key(keyed_stack)
    tokens: list[int] = []
    async with Proxy("127.0.0.1", keyed_stack.port) as proxy, browser(tmp_path, speech) as context:
        other = await context.new_page()
        await other.goto(f"http://localhost:{keyed_stack.port}/console/login.html")
        assert await other.evaluate(_LOG_IN, key)
        context.on("response", lambda answer: tokens.append(answer.status) if "/tokens" in answer.url else None)
        live = await visit(context, proxy.port, complaints)
        await live.start()
        await live.record(2)
        assert await other.evaluate(_LOG_OUT)
        proxy.cut()
        await live.shows("You are logged out")
        await live.shows("Log in again in another tab")
        await live.record(len(live.captured) / 32_000 + 1)
        assert await other.evaluate(_LOG_IN, key)
        await live.shows("Recording")
        await live.stop()
        sessions = await live.ended()
        assert len(sessions) == 2
        assert tokens.count(200) == 2
        assert 401 in tokens
        # The page has never had the key.
        stored = await live.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        assert key not in stored
        assert "dl_" not in stored
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=keyed_stack.base_url, headers=headers, trust_env=False) as http:
        assert await recording(http, sessions) == bytes(live.captured)


async def test_a_login_that_may_not_record_is_explained(
    keyed_stack: Stack, speech: Path, complaints: Complaints, tmp_path: Path
) -> None:
    complaints.expect("status of 403")
    key = await make_key(keyed_stack, "sessions:read")
    async with browser(tmp_path, speech) as context:
        page = await context.new_page()
        await page.goto(f"http://localhost:{keyed_stack.port}/console/login.html")
        assert await page.evaluate(_LOG_IN, key)
        live = await visit(context, keyed_stack.port, complaints)
        await expect(live.page.get_by_role("main")).to_contain_text("This login may not record")
        await expect(live.page.get_by_role("main")).to_contain_text("scope realtime")
        await expect(live.page.get_by_role("button", name="Start recording")).to_be_disabled()
