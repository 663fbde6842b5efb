"""How much a tenant may, on every door of a stack with DALSTON_AUTH=keys, through Envoy."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.house import DOORS, EVERYTHING, House, bearer, until


@pytest.mark.parametrize("size", [10_000, 14_000, 50_000])
async def test_large_headers_and_cookies_are_no_matter(house: House, size: int) -> None:
    for name in ("x-any", "cookie"):
        answer = await house.http.get("/v1/realtime/sessions", headers={name: "x" * size} | bearer(house.admin))
        assert answer.status_code == 200, answer.text


async def test_a_tenant_runs_so_many_sessions_and_is_told_on_every_door(house: House) -> None:
    key = await house.make_tenant("small", "realtime", max_sessions=1, max_session_seconds=77, idle_timeout_seconds=33)
    async with house.connect("", key) as socket:
        begin = json.loads(await socket.recv())
        assert begin["limits"] == {
            "max_session_seconds": 77,
            "idle_timeout_seconds": 33,
            "max_message_bytes": 65536,
        }
        code, messages = await house.socket("", **bearer(key))
        assert (code, messages[-1]["code"], messages[-1]["recoverable"]) == (4429, "too_many_sessions", True)
        transcribe = next(door for door in DOORS if door.method.name == "Transcribe")
        answer = await house.try_door(transcribe, key)
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS")
        assert answer.retry_after == 5

    async def is_free() -> bool:
        return (await house.socket("", **bearer(key)))[0] == 1000

    await until(is_free, 10)


async def test_a_refused_resume_leaves_the_session_of_a_silent_client_alone(house: House) -> None:
    key = await house.make_tenant("quiet", "realtime", max_sessions=2)
    async with house.connect("", key) as socket, house.connect("", key) as other:
        session_id = json.loads(await socket.recv())["session_id"]
        await other.recv()
        await asyncio.sleep(2.5)
        resume = f"resume_session_id={session_id}"
        for refused in ("&resume_from_seconds=9", "&sample_rate=8000"):
            _, messages = await house.socket(resume + refused, **bearer(key))
            assert messages[-1]["code"] == "invalid_parameters"
        # At the limit: the one that is continued makes room for the one that continues it.
        _, messages = await house.socket(resume, **bearer(key))
        assert messages[0]["type"] == "session.begin"
        with suppress(ConnectionClosed):
            async for text in socket:
                ended = json.loads(text)
        assert (ended["code"], "resumed_by" in ended) == ("session_resumed", False)


async def test_an_idle_session_of_a_tenant_ends_at_the_tenant_s_limit(house: House) -> None:
    key = await house.make_tenant("hasty", "realtime", idle_timeout_seconds=0.5)
    async with house.connect("", key) as socket:
        with pytest.raises(ConnectionClosed):
            while True:
                await asyncio.wait_for(socket.recv(), 10)
        assert socket.close_code == 4408


async def test_a_tenant_calls_so_often_and_is_told_on_every_door(house: House) -> None:
    key = await house.make_tenant("eager", *EVERYTHING, requests_per_second=0.01)
    path = "/v1/realtime/sessions"
    assert (await house.http.get(path, headers=bearer(key))).status_code == 200
    answer = await house.http.get(path, headers=bearer(key))
    assert answer.status_code == 429
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= 100
    assert "dalston-try-elsewhere" not in answer.headers
    info, retry = answer.json()["details"]
    assert (info["reason"], info["metadata"]) == ("RATE_LIMITED", {"retry_after_seconds": str(seconds)})
    assert retry["retryDelay" if "retryDelay" in retry else "retry_delay"] == f"{seconds}s"
    listing = next(door for door in DOORS if door.method.name == "ListSessions" and not door.verb)
    native = await house.try_door(listing, key)
    assert (native.code, native.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert native.retry_after
    code, messages = await house.socket("", **bearer(key))
    assert (code, messages[-1]["code"]) == (4429, "rate_limited")


async def test_a_tenant_at_its_limit_is_not_sent_to_another_server(house: House) -> None:
    """Envoy's own log says how often it tried."""
    key = await house.make_tenant("patient", *EVERYTHING, requests_per_second=0.01)
    path = "/v1/realtime/sessions/sess_patient"
    for _ in range(2):
        answer = await house.http.get(path, headers=bearer(key))
    assert answer.status_code == 429

    def attempts() -> list[int]:
        entries = map(json.loads, house.stack.home.log("access").read_text().splitlines())
        return [entry["attempts"] for entry in entries if entry["path"] == path]

    async def is_logged() -> bool:
        return len(attempts()) == 2

    await until(is_logged)
    assert attempts() == [1, 1]
