"""A WebSocket that breaks in mid-sentence, and the next one that goes on: real speech, nothing lost, nothing twice."""

import asyncio
import json
import textwrap
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.e2e.conftest import Client, Sample, audio_bytes, chunks
from tests.e2e.test_guides import program
from tests.e2e.test_whole_road import STORED
from tests.words import word_error_rate

_BYTES_PER_SECOND = 32_000


async def broken(client: Client, audio: bytes) -> tuple[str, list[dict[str, Any]]]:
    """Sends audio, hears two finals and loses its connection without a word; gives the session and what it heard."""
    finals: list[dict[str, Any]] = []
    async with client.open(**STORED, language="en") as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        for frame in chunks(audio):
            await socket.send(frame)
        while len(finals) < 2:
            message = json.loads(await socket.recv())
            if message["type"] == "transcript.final":
                finals.append(message)
        socket.transport.abort()
    return session_id, finals


async def resume_as_the_guide_does(
    socket: ClientConnection, finals: list[dict[str, Any]], kept: bytes
) -> dict[str, Any]:
    """Runs the lines of docs/websocket.md under "Resuming"; gives the variables that they leave."""
    lines = textwrap.indent(program("websocket.md", "python", of=1), "    ")
    source = f"async def resume(json, socket, rate, frame_bytes, finals, kept, kept_from):\n{lines}    return locals()"
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 - our own guide
    left: dict[str, Any] = await names["resume"](json, socket, 16_000, 2, finals, kept, 0)
    return left


@pytest.mark.timeout(180)
async def test_a_socket_that_breaks_is_continued_by_the_next(client: Client, sample: Sample) -> None:
    source = sample.pcm.tobytes()
    first, heard = await broken(client, source[: int(0.6 * sample.seconds) * _BYTES_PER_SECOND])
    async with client.open(**STORED, language="en", resume_session_id=first) as socket:
        resumed = await resume_as_the_guide_does(socket, heard, source)
        begin = resumed["begin"]
        assert begin["resumed_from"] == first
        point = begin["resume_from_seconds"]
        assert heard[0]["end"] <= point <= 0.6 * sample.seconds
        assert resumed["finals"] == [final for final in heard if final["end"] <= point]
        assert resumed["backlog"] == source[round(point * 16_000) * 2 :]
        outcome = await client.talk(socket, [begin], *chunks(resumed["backlog"]), '{"type":"end"}')
    assert outcome.close_code == 1000
    second = begin["session_id"]
    record = (await client.http.get(f"/v1/realtime/sessions/{second}")).json()
    assert (record["previous_session_id"], record["resume_from_seconds"]) == (first, pytest.approx(point, abs=1e-5))
    await _until_stored(client, first)
    recordings = [
        audio_bytes((await client.http.get(f"/v1/realtime/sessions/{each}/audio")).content) for each in (first, second)
    ]
    assert recordings[0][: round(point * 16_000) * 2] + recordings[1] == source
    before = (await client.http.get(f"/v1/realtime/sessions/{first}/transcript")).json()["utterances"]
    said = [each["text"] for each in before if each["start"] < point - 1e-5]
    assert said[:1] == [heard[0]["text"]]
    assert word_error_rate(sample.text, " ".join([*said, outcome.one("session.end")["transcript"]])) <= 0.1


async def test_a_session_is_resumed_once(client: Client, sample: Sample) -> None:
    audio = sample.pcm[:32_000].tobytes()
    first = (await client.transcribe(*chunks(audio), **STORED)).one("session.begin")["session_id"]
    second = (await client.transcribe(*chunks(audio), **STORED, resume_session_id=first)).one("session.begin")
    assert second["resume_from_seconds"] == 2.0
    refused = await client.transcribe(resume_session_id=first)
    assert refused.close_code == 4409
    assert refused.close_reason == "session_resumed"
    assert second["session_id"] in refused.one("error")["message"]
    refused = await client.transcribe(resume_session_id=first[:-8] + "00000000")
    assert (refused.close_code, refused.close_reason) == (4404, "session_not_found")


async def _until_stored(client: Client, session_id: str) -> None:
    for _ in range(300):
        record = (await client.http.get(f"/v1/realtime/sessions/{session_id}")).json()
        if record.get("audio_uri") and record.get("transcript_uri"):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("the first session is not stored")
