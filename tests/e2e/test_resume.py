"""A WebSocket that is lost in mid-sentence is resumed by another: real speech, nothing lost, nothing twice."""

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.conftest import Client, Sample, audio_bytes, chunks
from tests.e2e.test_transcription import STORED
from tests.guides import resumed, resuming_parameters
from tests.words import word_error_rate

_BYTES_PER_SECOND = 32_000


async def lost_connection(client: Client, audio: bytes) -> dict[str, Any]:
    """Sends audio, receives two finals and loses its connection. Returns the state that the guide requires to keep.

    More finals may be in transit.
    """
    finals: list[dict[str, Any]] = []
    ack: dict[str, Any] = {}
    async with client.open(**STORED, language="en", acks="true") as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        for frame in chunks(audio):
            await socket.send(frame)
        while len(finals) < 2 or ack.get("stored_seconds", 0) < finals[1]["end"]:
            message = json.loads(await socket.recv())
            if message["type"] == "transcript.final":
                finals.append(message)
            elif message["type"] == "audio.ack":
                ack = message
        socket.transport.abort()
    return {"session_id": session_id, "finals": finals, "ack": ack}


@pytest.mark.timeout(180)
async def test_a_lost_connection_is_resumed_by_the_next(client: Client, sample: Sample) -> None:
    source = sample.pcm.tobytes()
    lost = await lost_connection(client, source[: int(0.6 * sample.seconds) * _BYTES_PER_SECOND])
    first, received = lost["session_id"], lost["finals"]
    names = {"rate": 16_000, "frame_bytes": 2, "kept_from": 0}
    parameters = await resuming_parameters(**lost, **names, store_audio=True)
    async with client.open(**STORED, language="en", **parameters) as socket:
        left = await resumed(socket=socket, kept=source, finals=received, **names)
        begin = left["begin"]
        assert begin["resumed_from"] == first
        point = begin["resume_from_seconds"]
        assert received[1]["end"] <= point <= 0.6 * sample.seconds
        assert point == pytest.approx(left["finals"][-1]["end"], abs=1e-4)
        assert left["finals"] == [final for final in received if final["end"] <= lost["ack"]["stored_seconds"]]
        assert left["backlog"] == source[round(point * 16_000) * 2 :]
        outcome = await client.talk(socket, [begin], *chunks(left["backlog"]), '{"type":"end"}')
    assert outcome.close_code == 1000
    second = begin["session_id"]
    record = (await client.http.get(f"/v1/realtime/sessions/{second}")).json()
    assert (record["previous_session_id"], record["resume_from_seconds"]) == (first, pytest.approx(point, abs=1e-5))
    await _until_stored(client, first)
    recordings = [
        audio_bytes((await client.http.get(f"/v1/realtime/sessions/{each}/audio")).content) for each in (first, second)
    ]
    assert recordings[0][: round(point * 16_000) * 2] + recordings[1] == source
    texts = [final["text"] for final in left["finals"]]
    assert word_error_rate(sample.text, " ".join([*texts, outcome.one("session.end")["transcript"]])) <= 0.1


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
