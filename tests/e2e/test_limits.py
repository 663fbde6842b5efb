"""The limits of a tenant on every interface of a stack with DALSTON_AUTH=keys, through Envoy."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.harness import EVERYTHING, ROUTES, Harness, bearer, until


@pytest.mark.parametrize("size", [10_000, 14_000, 50_000])
async def test_large_headers_and_cookies_are_accepted(harness: Harness, size: int) -> None:
    for name in ("x-any", "cookie"):
        answer = await harness.http.get("/v1/realtime/sessions", headers={name: "x" * size} | bearer(harness.admin))
        assert answer.status_code == 200, answer.text


async def test_the_session_limit_applies_on_every_interface(harness: Harness) -> None:
    key = await harness.make_tenant(
        "small", "realtime", max_sessions=1, max_session_seconds=77, idle_timeout_seconds=33
    )
    async with harness.connect("", key) as socket:
        begin = json.loads(await socket.recv())
        assert begin["limits"] == {
            "max_session_seconds": 77,
            "idle_timeout_seconds": 33,
            "max_message_bytes": 65536,
        }
        code, messages = await harness.socket("", **bearer(key))
        assert (code, messages[-1]["code"], messages[-1]["recoverable"]) == (4429, "too_many_sessions", True)
        transcribe = next(route for route in ROUTES if route.method.name == "Transcribe")
        answer = await harness.call_route(transcribe, key)
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS")
        assert answer.retry_after == 5

    async def is_free() -> bool:
        return (await harness.socket("", **bearer(key)))[0] == 1000

    await until(is_free, 10)


async def test_a_refused_resume_does_not_end_the_session_of_an_idle_client(harness: Harness) -> None:
    key = await harness.make_tenant("quiet", "realtime", max_sessions=2)
    async with harness.connect("", key) as socket, harness.connect("", key) as other:
        session_id = json.loads(await socket.recv())["session_id"]
        await other.recv()
        await asyncio.sleep(2.5)
        resume = f"resume_session_id={session_id}"
        for refused in ("&resume_from_seconds=9", "&sample_rate=8000"):
            _, messages = await harness.socket(resume + refused, **bearer(key))
            assert messages[-1]["code"] == "invalid_parameters"
        # At the limit the session that is resumed frees a place for the one that resumes it.
        _, messages = await harness.socket(resume, **bearer(key))
        assert messages[0]["type"] == "session.begin"
        with suppress(ConnectionClosed):
            async for text in socket:
                ended = json.loads(text)
        assert (ended["code"], "resumed_by" in ended) == ("session_resumed", False)


async def test_the_idle_timeout_of_a_tenant_applies(harness: Harness) -> None:
    key = await harness.make_tenant("short_timeout", "realtime", idle_timeout_seconds=0.5)
    async with harness.connect("", key) as socket:
        with pytest.raises(ConnectionClosed):
            while True:
                await asyncio.wait_for(socket.recv(), 10)
        assert socket.close_code == 4408


async def test_the_rate_limit_applies_on_every_interface(harness: Harness) -> None:
    key = await harness.make_tenant("eager", *EVERYTHING, requests_per_second=0.01)
    path = "/v1/realtime/sessions"
    assert (await harness.http.get(path, headers=bearer(key))).status_code == 200
    answer = await harness.http.get(path, headers=bearer(key))
    assert answer.status_code == 429
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= 100
    assert "dalston-try-elsewhere" not in answer.headers
    info, retry = answer.json()["details"]
    assert (info["reason"], info["metadata"]) == ("RATE_LIMITED", {"retry_after_seconds": str(seconds)})
    assert retry["retryDelay" if "retryDelay" in retry else "retry_delay"] == f"{seconds}s"
    listing = next(route for route in ROUTES if route.method.name == "ListSessions" and not route.verb)
    native = await harness.call_route(listing, key)
    assert (native.code, native.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert native.retry_after
    code, messages = await harness.socket("", **bearer(key))
    assert (code, messages[-1]["code"]) == (4429, "rate_limited")


async def test_a_refusal_for_a_tenant_limit_is_not_retried(harness: Harness) -> None:
    """The access log of Envoy has the number of attempts."""
    key = await harness.make_tenant("at_limit", *EVERYTHING, requests_per_second=0.01)
    path = "/v1/realtime/sessions/sess_at_limit"
    for _ in range(2):
        answer = await harness.http.get(path, headers=bearer(key))
    assert answer.status_code == 429

    def attempts() -> list[int]:
        entries = map(json.loads, harness.stack.home.log("access").read_text().splitlines())
        return [entry["attempts"] for entry in entries if entry["path"] == path]

    async def is_logged() -> bool:
        return len(attempts()) == 2

    await until(is_logged)
    assert attempts() == [1, 1]
