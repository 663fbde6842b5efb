"""Administration of a tenant: ending sessions, revoking keys, and the audit log."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from persistence.postgres.api_keys import parse_key_id
from persistence.postgres.cursor import _PLACE
from persistence.postgres.position import Position
from tests.e2e.harness import STORED, STREAM, Harness, bearer, until

SESSIONS = "/v1/realtime/sessions"
WITHIN_SECONDS = 10.0


async def to_end(socket: Any) -> list[dict[str, Any]]:
    messages = []
    with suppress(ConnectionClosed):
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                messages.append(json.loads(await socket.recv()))
    return messages


async def test_a_session_ended_by_rest_closes_its_websocket(harness: Harness) -> None:
    async with harness.connect(STORED, harness.admin) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        await socket.send(bytes(32_000))
        answer = await harness.http.post(f"{SESSIONS}/{session_id}/end", headers=bearer(harness.admin))
        assert (answer.status_code, answer.json()["status"]) == (200, "active"), answer.text
        last = (await to_end(socket))[-1]
        assert (socket.close_code, last["code"], last["recoverable"]) == (4410, "session_ended", False)

    async def is_interrupted() -> bool:
        answer = await harness.http.post(f"{SESSIONS}/{session_id}/end", json={}, headers=bearer(harness.admin))
        return bool(answer.json()["status"] == "interrupted")

    await until(is_interrupted)
    answer = await harness.http.get(f"{SESSIONS}/{session_id}", headers=bearer(harness.admin))
    assert answer.json()["error"] == "session_ended: the session was ended on request"


async def test_a_revoked_key_ends_its_live_sessions(harness: Harness) -> None:
    made = await harness.make_key("realtime")
    token = await harness.make_token(made["secret"])
    page = connect(f"{harness.stack.ws_url}{STREAM}?token={token}", proxy=None)
    async with harness.connect(STORED, made["secret"]) as by_key, page as by_token:
        for socket in (by_key, by_token):
            assert json.loads(await socket.recv())["type"] == "session.begin"
        await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))
        for socket in (by_key, by_token):
            last = (await to_end(socket))[-1]
            assert (socket.close_code, last["code"]) == (4001, "unauthenticated")


async def test_a_revoked_key_creates_no_other_while_it_is_cached(harness: Harness) -> None:
    made = await harness.make_key("admin", "realtime", "sessions:read")
    mine = bearer(made["secret"])
    assert (await harness.http.get("/v1/keys", headers=mine)).status_code == 200
    await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))
    for path, body in (
        ("/v1/keys", {"name": "forever", "scopes": ["admin"]}),
        ("/v1/realtime/tokens", {"expires_in_seconds": 60}),
    ):
        answer = await harness.http.post(path, json=body, headers=mine)
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (401, "UNAUTHENTICATED")
    answer = await harness.http.delete(f"/v1/keys/{harness.key}", headers=mine)
    assert answer.status_code == 401


async def test_a_key_names_the_key_that_created_it(harness: Harness) -> None:
    made = await harness.make_key("realtime")
    keys = (await harness.http.get("/v1/keys?limit=100", headers=bearer(harness.admin))).json()["keys"]
    by_id = {key["id"]: key for key in keys}
    maker = made["key"]["created_by"]
    assert by_id[made["key"]["id"]]["created_by"] == maker
    assert "created_by" not in by_id[maker], "the operator created the first key"
    row = await harness.database.fetchrow("SELECT name FROM api_keys WHERE id = $1", parse_key_id(maker))
    assert row["name"] == "test"


async def test_one_log_line_names_key_session_and_result_of_an_access(
    harness: Harness,
) -> None:
    made = await harness.make_key("sessions:read", "sessions:write", "realtime")
    _, messages = await harness.socket(STORED, **bearer(made["secret"]))
    session_id = messages[-1]["session_id"]

    async def is_stored() -> bool:
        answer = await harness.http.get(f"{SESSIONS}/{session_id}", headers=bearer(harness.admin))
        return "transcript_uri" in answer.json()

    await until(is_stored)
    path = f"{SESSIONS}/{session_id}"
    for verb, rest in (("GET", ""), ("GET", "/audio?linked=true"), ("GET", "/export/txt"), ("DELETE", ""), ("GET", "")):
        await harness.http.request(verb, path + rest, headers=bearer(made["secret"]))
    await harness.http.get(f"{SESSIONS}/sess_{'x' * 50}", headers=bearer(made["secret"]))
    seen: list[dict[str, Any]] = []

    async def is_logged() -> bool:
        lines = harness.stack.home.log("server").read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{") and '"session accessed"' in line]
        seen[:] = [entry for entry in entries if entry["key_id"] == made["key"]["id"]]
        return len(seen) >= 6

    await until(is_logged)
    # A client that has all of a download may close it before the server has noted that.
    outcomes = ["ok" if entry["outcome"] == "cancelled" else entry["outcome"] for entry in seen]
    assert [
        (entry["method"], outcome, entry.get("session_id")) for entry, outcome in zip(seen, outcomes, strict=True)
    ] == [
        ("GetSession", "ok", session_id),
        ("GetAudio", "ok", session_id),
        ("ExportTranscript", "ok", session_id),
        ("DeleteSession", "ok", session_id),
        ("GetSession", "session_not_found", session_id),
        ("GetSession", "invalid_parameters", None),
    ]
    assert [entry.get("linked") for entry in seen] == [None, "true", None, None, None, None]
    (tenant_id,) = {entry["tenant_id"] for entry in seen}
    assert await harness.database.fetchval("SELECT name FROM tenants WHERE id = $1", tenant_id) == "acme"


def a_cursor(microseconds: int) -> str:
    place = _PLACE.pack(1, microseconds, bytes(16))
    return base64.urlsafe_b64encode(place + struct.pack(">I", zlib.crc32(place))).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "query",
    [
        *(f"cursor={a_cursor(at)}" for at in (-(2**63), 2**63 - 1, -62135596800000001, 253402300800000000)),
        "cursor=AQAG",
        "offset=-1",
        "offset=2147483647",
        "limit=-2147483648",
        "limit=2147483647",
        "since=0000-01-01T00:00:00Z",
        "status=%00",
    ],
)
async def test_any_number_in_the_query_of_a_list_is_handled(harness: Harness, query: str) -> None:
    answer = await harness.http.get(f"{SESSIONS}?{query}", headers=bearer(harness.admin))
    assert answer.status_code == 400, answer.text
    if "cursor" in query:
        assert (await harness.http.get(f"/v1/keys?{query}", headers=bearer(harness.admin))).status_code == 400


@pytest.mark.parametrize("microseconds", [-62135596800000000, 0, 253402300799999999])
async def test_the_first_and_last_timestamps_are_valid_cursors(harness: Harness, microseconds: int) -> None:
    for path in (SESSIONS, "/v1/keys"):
        answer = await harness.http.get(f"{path}?cursor={a_cursor(microseconds)}", headers=bearer(harness.admin))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=-2147483648", "limit=0", "limit=-1", "limit=1001", "limit=2147483647"]
)
async def test_any_number_in_the_query_of_utterances_is_handled(harness: Harness, query: str) -> None:
    path = f"{SESSIONS}/{harness.sessions['completed']}/utterances"
    assert (await harness.http.get(f"{path}?{query}", headers=bearer(harness.admin))).status_code == 400


async def test_a_page_after_the_last_utterance_is_empty(harness: Harness) -> None:
    path = f"{SESSIONS}/{harness.sessions['completed']}/utterances?offset=2147483647"
    answer = await harness.http.get(path, headers=bearer(harness.admin))
    assert (answer.status_code, answer.json()["utterances"]) == (200, [])


async def test_a_watch_token_with_its_numbers_out_of_order_gets_a_snapshot(harness: Harness) -> None:
    session = await harness.http.get(f"{SESSIONS}/{harness.sessions['completed']}", headers=bearer(harness.admin))
    assert session.status_code == 200
    tenant_id = await harness.database.fetchval("SELECT id FROM tenants WHERE name = 'acme'")
    now = await harness.database.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    at = await harness.database.fetchval("SELECT extract(epoch FROM now())::bigint")
    token = Position(at, 10, now, (30, 20, 25)).encode(tenant_id, None)
    kinds = []
    url = f"{SESSIONS}:watch?resume_token={token}"
    async with harness.http.stream("GET", url, headers=bearer(harness.admin)) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            kinds.append(json.loads(line)["type"])
            if kinds[-1] not in ("snapshot",):
                break
    assert set(kinds) == {"snapshot", "ready"}


async def test_a_tenant_at_its_quota_is_warned_and_may_still_stream(harness: Harness) -> None:
    key = await harness.make_tenant("full", "realtime", max_storage_bytes=0)
    code, messages = await harness.socket(STORED, **bearer(key))
    assert (code, messages[-1]["code"], messages[-1]["recoverable"]) == (4429, "storage_quota_exceeded", False)
    code, _ = await harness.socket("", **bearer(key))
    assert code == 1000
