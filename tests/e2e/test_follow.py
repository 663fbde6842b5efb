"""The text of a running session, and the waveform of its recording, through the whole stack."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from dalston import AsyncClient, NotFound, PartialResult, Utterance

from tests.e2e.conftest import Client, Sample, chunks
from tests.e2e.harness import Harness, bearer
from tests.waveforms import read_waveform

SECONDS = 14
SESSIONS = "/v1/realtime/sessions"
STORED = {"store_audio": "true", "store_transcript": "true"}


async def watch(client: Client, session_id: str, messages: list[dict[str, Any]]) -> None:
    """Reads the server-sent events of a session to their end."""
    headers = {"accept": "text/event-stream"}
    path = f"{SESSIONS}/{session_id}/utterances:watch"
    async with client.http.stream("GET", path, headers=headers, timeout=60) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        async for line in answer.aiter_lines():
            if line:
                messages.append(json.loads(line.removeprefix("data: ")))  # noqa: PERF401 - others look meanwhile


async def follow(client: Client, session_id: str, found: list[Utterance | PartialResult]) -> None:
    async with AsyncClient(client.stack.base_url) as sdk:
        async for each in sdk.sessions.follow(session_id):
            found.append(each)  # noqa: PERF401


async def test_a_live_session_is_followed_to_its_end(client: Client, sample: Sample) -> None:
    pcm = sample.pcm[: SECONDS * sample.rate]
    messages: list[dict[str, Any]] = []
    found: list[Utterance | PartialResult] = []
    async with client.open(language="en", interim_results="true", **STORED) as socket:
        begin = json.loads(await socket.recv())
        session_id = begin["session_id"]
        watching = asyncio.gather(watch(client, session_id, messages), follow(client, session_id, found))

        async def send() -> None:
            # The watch is open before anything is spoken, so that partials have somebody to be sent to.
            async with asyncio.timeout(30):
                while not messages:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            for chunk in chunks(pcm.tobytes()):
                await socket.send(chunk)
                await asyncio.sleep(0.1)
            await socket.send('{"type":"end"}')

        sending = asyncio.create_task(send())
        outcome = await client.talk(socket, [begin])
        await sending
    finals = [message["text"] for message in outcome.of("transcript.final")]
    assert len(finals) >= 2
    async with asyncio.timeout(60):
        await watching

    utterances = [message["utterance"] for message in messages if message["type"] == "utterance"]
    assert [each["text"] for each in utterances] == finals
    assert [each["index"] for each in utterances] == list(range(len(finals)))
    assert messages[0]["type"] == "heartbeat"
    assert messages[-1]["type"] == "ended"
    kinds = [message["type"] for message in messages]
    assert "partial" in kinds[: kinds.index("utterance")]
    assert [each.text for each in found if isinstance(each, Utterance)] == finals
    assert any(isinstance(each, PartialResult) for each in found)

    again: list[dict[str, Any]] = []
    path = f"{SESSIONS}/{session_id}/utterances:watch?offset=1"
    async with client.http.stream("GET", path) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        again += [json.loads(line) async for line in answer.aiter_lines()]
    assert [each["utterance"]["text"] for each in again[:-1]] == finals[1:]
    assert again[-1] == {"type": "ended"}
    assert (await client.http.head(path)).status_code == 200

    await is_drawn(client, session_id, pcm)


async def is_drawn(client: Client, session_id: str, pcm: np.ndarray) -> None:
    path = f"{SESSIONS}/{session_id}/waveform"
    answer = await client.http.get(path)
    assert answer.status_code == 200
    waveform = read_waveform(answer.content)
    assert waveform.seconds == pytest.approx(SECONDS, abs=0.1)
    at = int(np.argmax(pcm)) // waveform.samples_per_pixel
    assert waveform.pairs[at][1] == int(pcm.max()) // 256
    tag = answer.headers["etag"]
    assert (await client.http.get(path, headers={"if-none-match": tag})).status_code == 304
    head = await client.http.head(path)
    assert head.headers["content-length"] == str(len(answer.content))
    joined = await client.http.get(path, params={"linked": "true"})
    assert joined.content == answer.content


async def test_only_stored_text_of_the_own_tenant_is_followed(harness: Harness) -> None:
    owner = await harness.make_tenant("followed", "realtime", "sessions:read")
    other = await harness.make_tenant("curious", "realtime", "sessions:read")
    async with harness.connect("store_transcript=true", owner) as stored, harness.connect("", owner) as unstored:
        ids = [json.loads(await socket.recv())["session_id"] for socket in (stored, unstored)]
        for kind in ("utterances:watch", "waveform"):
            answer = await harness.http.get(f"{SESSIONS}/{ids[0]}/{kind}", headers=bearer(other))
            assert answer.status_code == 404
            assert answer.json()["details"][0]["reason"] == "SESSION_NOT_FOUND"
        answer = await harness.http.get(f"{SESSIONS}/{ids[1]}/utterances:watch", headers=bearer(owner))
        assert answer.status_code == 404
        assert answer.json()["details"][0]["reason"] == "TRANSCRIPT_NOT_STORED"
        async with AsyncClient(harness.stack.base_url, api_key=owner) as sdk:
            with pytest.raises(NotFound):
                await anext(sdk.sessions.follow(ids[1]))
        answer = await harness.http.get(f"{SESSIONS}/{ids[0]}/waveform", headers=bearer(owner))
        assert answer.json()["details"][0]["reason"] == "AUDIO_NOT_STORED"
        for socket in (stored, unstored):
            await socket.send('{"type":"end"}')
            await socket.wait_closed()


async def test_a_key_that_is_revoked_ends_its_streams_of_utterances(harness: Harness) -> None:
    made = await harness.make_key("sessions:read")
    path = f"{SESSIONS}/{harness.sessions['active']}/utterances:watch"
    async with harness.http.stream("GET", path, headers=bearer(made["secret"]), timeout=40) as answer:
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines))["type"] in ("utterance", "heartbeat")
        await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))
        last = [json.loads(line) async for line in lines][-1]
    assert (last["type"], last["code"]) == ("error", "unauthenticated")
