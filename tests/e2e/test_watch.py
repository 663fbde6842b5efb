"""Changes of sessions through the real Envoy, over gRPC, as server-sent events and as lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from stack.settings import ROOT
from tests.e2e.harness import Harness, bearer, grpc_bearer
from tests.faults.watcher import Watcher

WATCH = "/v1/realtime/sessions:watch"
EVENTS = {"accept": "text/event-stream"}
Message = dict[str, Any]


class Lines:
    """The messages of a watch over REST."""

    def __init__(self, response: httpx.Response, is_events: bool) -> None:
        self.response = response
        self.messages: list[Message] = []
        self.is_at_end = False
        self._read = self._parse(is_events)

    async def until(self, condition: Callable[[list[Message]], bool], seconds: float = 20) -> list[Message]:
        async with asyncio.timeout(seconds):
            while not condition(self.messages):
                self.messages.append(await anext(self._read))
        return self.messages

    async def to_end(self, seconds: float = 20) -> list[Message]:
        async with asyncio.timeout(seconds):
            self.messages += [message async for message in self._read]
        return self.messages

    async def _parse(self, is_events: bool) -> AsyncIterator[Message]:
        async for line in self.response.aiter_lines():
            if is_events:
                assert not line or line.startswith("data: "), line
                line = line.removeprefix("data: ")
            if line:
                yield json.loads(line)


@asynccontextmanager
async def watching(harness: Harness, key: str, *, events: bool = True, **query: str) -> AsyncIterator[Lines]:
    headers = bearer(key) | (EVENTS if events else {})
    async with harness.http.stream("GET", WATCH, params=query, headers=headers, timeout=40) as response:
        assert response.status_code == 200
        yield Lines(response, events)


def is_ready(messages: list[Message]) -> bool:
    return any(message["type"] == "ready" for message in messages)


@pytest.mark.parametrize("events", [True, False], ids=["server-sent events", "lines of JSON"])
async def test_a_watch_shows_a_session_from_begin_to_deletion(harness: Harness, events: bool) -> None:
    key = await harness.make_tenant(f"watched {events}", "realtime", "sessions:read", "sessions:write")
    async with watching(harness, key, events=events) as lines:
        wanted = "text/event-stream" if events else "application/x-ndjson"
        assert lines.response.headers["content-type"] == wanted
        assert lines.response.headers["cache-control"] == "no-store"
        (ready,) = await lines.until(is_ready)
        assert set(ready) == {"type", "resume_token"} | ({"session"} & set(ready))
        async with harness.connect("", key) as socket:
            session_id = json.loads(await socket.recv())["session_id"]
            await lines.until(lambda seen: seen[-1]["type"] == "changed", 5)
            assert lines.messages[-1]["session"]["id"] == session_id
            assert lines.messages[-1]["session"]["status"] == "active"
            await socket.send('{"type":"end"}')
            await socket.wait_closed()
        await lines.until(lambda seen: seen[-1].get("session", {}).get("status") == "completed", 5)
        gone = await harness.http.delete(f"/v1/realtime/sessions/{session_id}", headers=bearer(key))
        assert gone.status_code == 200
        await lines.until(lambda seen: seen[-1]["type"] == "deleted", 5)
        assert lines.messages[-1]["session"]["id"] == session_id


async def test_a_watch_begins_with_a_snapshot_and_resumes_without_one(harness: Harness) -> None:
    async with watching(harness, harness.admin) as lines:
        messages = await lines.until(is_ready)
        snapshot = {message["session"]["id"]: message["session"]["status"] for message in messages[:-1]}
        assert {message["type"] for message in messages[:-1]} == {"snapshot"}
        assert not any(message["resume_token"] for message in messages[:-1])
        for state, session_id in harness.sessions.items():
            assert snapshot.get(session_id, "deleted") == state
    _, session_messages = await harness.socket("", **bearer(harness.admin))
    async with watching(harness, harness.admin, resume_token=messages[-1]["resume_token"]) as lines:
        again = await lines.until(is_ready)
        assert session_messages[-1]["session_id"] in {message["session"]["id"] for message in again[:-1]}
        assert {message["type"] for message in again[:-1]} == {"changed"}
        assert not {message["session"]["id"] for message in again[:-1]} & set(harness.sessions.values())
    async with watching(harness, harness.admin, resume_token="nonsense", status="active") as lines:
        anew = await lines.until(is_ready)
        assert [message["session"]["id"] for message in anew if message["type"] == "snapshot"] == [
            harness.sessions["active"]
        ]


async def test_a_grpc_watch_shows_progress_within_two_seconds(harness: Harness) -> None:
    key = await harness.make_tenant("native", "realtime", "sessions:read")
    watcher = Watcher(harness.channel, metadata=grpc_bearer(key))
    await watcher.until(lambda each: "ready" in each.kinds)
    async with harness.connect("sample_rate=16000", key) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        await watcher.until(lambda each: session_id in each.known, 5)
        await socket.send('{"type":"end"}')
        await socket.wait_closed()
    await watcher.until(lambda each: each.statuses == {session_id: "completed"}, 2)
    await watcher.close()


async def test_a_key_that_is_revoked_ends_its_watches_within_ten_seconds(harness: Harness) -> None:
    made = await harness.make_key("sessions:read")
    native = Watcher(harness.channel, metadata=grpc_bearer(made["secret"]))
    async with watching(harness, made["secret"]) as lines:
        await lines.until(is_ready)
        await native.until(lambda each: "ready" in each.kinds)
        await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))
        error = await native.ended(14)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        last = (await lines.to_end(14))[-1]
        assert (last["type"], last["code"]) == ("error", "unauthenticated")


@pytest.mark.parametrize("headers", [EVENTS, {}], ids=["server-sent events", "lines of JSON"])
@pytest.mark.parametrize(("query", "word"), [("status=asleep", "status"), ("colour=red", "colour")])
async def test_errors_of_a_watch_request_are_json(
    harness: Harness, headers: dict[str, str], query: str, word: str
) -> None:
    answer = await harness.http.get(f"{WATCH}?{query}", headers=bearer(harness.admin) | headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert word in answer.json()["message"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/json", "application/x-ndjson"),
        ("text/event-stream", "text/event-stream"),
    ],
)
async def test_the_content_type_of_a_watch_is_the_documented_one(harness: Harness, accept: str, kind: str) -> None:
    declared = json.loads((ROOT / "envoy/openapi.json").read_text())["paths"][WATCH]["get"]["responses"]["200"][
        "content"
    ]
    headers = bearer(harness.admin) | ({"accept": accept} if accept else {})
    async with harness.http.stream("GET", WATCH, headers=headers) as response:
        assert response.headers["content-type"] == kind
        assert kind in declared
    head = await harness.http.head(WATCH, headers=headers)
    assert (head.status_code, head.headers["content-type"], head.content) == (200, kind, b"")
    # Refusals are JSON documents, whatever the Accept header is.
    refused = await harness.http.get(f"{WATCH}?status=odd", headers=headers)
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")
    assert (await harness.http.head(WATCH)).status_code == 401


@pytest.mark.parametrize(
    "path", ["", "/{id}", "/{id}/utterances", "/{id}/transcript", "/{id}/export/txt", "/sess_{none}"]
)
async def test_head_is_get_without_a_body(harness: Harness, path: str) -> None:
    url = f"/v1/realtime/sessions{path}".format(id=harness.sessions["completed"], none="0" * 32)
    got = await harness.http.get(url, headers=bearer(harness.admin))
    head = await harness.http.head(url, headers=bearer(harness.admin))
    assert got.status_code == (404 if "none" in path else 200)
    assert (head.status_code, head.headers["content-type"]) == (got.status_code, got.headers["content-type"])
    assert head.content == b""
