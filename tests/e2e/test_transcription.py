"""Real speech through Envoy, the bridge and the server, into Postgres and S3, and back over REST."""

import asyncio
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2_grpc
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeRequest

from tests.e2e.conftest import Client, Outcome, Sample, audio_bytes, chunks
from tests.words import word_error_rate

STORED = {"store_audio": "true", "store_transcript": "true"}


@pytest.fixture(scope="module")
async def outcome_of_sample(client: Client, sample: Sample) -> Outcome:
    """One stored session of the whole sample."""
    asked = {"language": "en", "word_timestamps": "true", "vocabulary": '["Dashwood", "Norland Park"]'}
    return await client.transcribe(*chunks(sample.pcm.tobytes()), **STORED, **asked)


async def test_the_text_is_right_and_finals_are_in_order(outcome_of_sample: Outcome, sample: Sample) -> None:
    assert outcome_of_sample.close_code == 1000
    begin, end, finals = (
        outcome_of_sample.messages[0],
        outcome_of_sample.messages[-1],
        outcome_of_sample.of("transcript.final"),
    )
    assert begin["type"] == "session.begin"
    assert begin["config"] == {
        "sample_rate": 16000,
        "encoding": "pcm_s16le",
        "channels": 1,
        "language": "en",
        "model": "fast",
    }
    assert begin["limits"]["max_message_bytes"] == 65536
    assert end["type"] == "session.end"
    assert word_error_rate(sample.text, end["transcript"]) <= 0.1
    assert end["transcript"] == " ".join(final["text"] for final in finals)
    assert [s["text"] for s in end["segments"]] == [final["text"] for final in finals]
    assert end["total_duration"] == pytest.approx(sample.seconds)
    assert len(finals) >= 4
    edges = [edge for final in finals for edge in (final["start"], final["end"])]
    assert edges == sorted(edges)
    assert all(0.3 < final["confidence"] <= 1 and final["language"] == "en" for final in finals)
    starts, ends = outcome_of_sample.of("vad.speech_start"), outcome_of_sample.of("vad.speech_end")
    assert [s["timestamp"] for s in starts] == [final["start"] for final in finals]
    assert [s["timestamp"] for s in ends] == [final["end"] for final in finals]


async def test_each_final_has_its_words_in_order(outcome_of_sample: Outcome, client: Client) -> None:
    finals = outcome_of_sample.of("transcript.final")
    for final in finals:
        assert " ".join(word["word"] for word in final["words"]) == final["text"]
        times = [time for word in final["words"] for time in (word["start"], word["end"])]
        assert [final["start"], *times, final["end"]] == sorted([final["start"], *times, final["end"]])
        assert all(0 < word["confidence"] <= 1 for word in final["words"])
        assert "language_probability" not in final
    path = f"/v1/realtime/sessions/{outcome_of_sample.messages[0]['session_id']}"
    stored = (await client.http.get(f"{path}/transcript")).json()
    assert [
        {**word, "confidence": round(word["confidence"], 6)}
        for utterance in stored["utterances"]
        for word in utterance["words"]
    ] == [word for final in finals for word in final["words"]]


async def test_the_times_of_a_final_match_the_audio(outcome_of_sample: Outcome, client: Client, sample: Sample) -> None:
    """The audio between the times of a final, transcribed alone, has the same words."""
    final = outcome_of_sample.of("transcript.final")[3]
    piece = sample.pcm[round(final["start"] * 16_000) : round(final["end"] * 16_000)]
    silence = np.zeros(8000, np.int16)
    again = await client.transcribe(*chunks(np.concatenate([silence, piece, silence]).tobytes()), language="en")
    assert word_error_rate(final["text"], again.one("session.end")["transcript"]) <= 0.1


async def test_the_stored_wav_has_the_sent_bytes(outcome_of_sample: Outcome, client: Client, sample: Sample) -> None:
    session_id = outcome_of_sample.messages[0]["session_id"]
    response = await client.http.get(f"/v1/realtime/sessions/{session_id}/audio")
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert session_id in response.headers["content-disposition"]
    info = soundfile.info(io.BytesIO(response.content))
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    assert audio_bytes(response.content) == sample.pcm.tobytes()


async def test_the_stored_transcript_has_the_documented_form(
    outcome_of_sample: Outcome, client: Client, sample: Sample
) -> None:
    end = outcome_of_sample.one("session.end")
    response = await client.http.get(f"/v1/realtime/sessions/{end['session_id']}/transcript")
    assert response.headers["content-type"] == "application/json"
    stored = response.json()
    assert stored["session_id"] == end["session_id"]
    assert stored["language"] == "en"
    assert stored["duration"] == pytest.approx(sample.seconds)
    assert stored["text"] == end["transcript"]
    assert [(u["start"], u["end"], u["text"]) for u in stored["utterances"]] == [
        (s["start"], s["end"], s["text"]) for s in end["segments"]
    ]


async def test_the_record_of_a_session_is_complete(outcome_of_sample: Outcome, client: Client, sample: Sample) -> None:
    end = outcome_of_sample.one("session.end")
    record = (await client.http.get(f"/v1/realtime/sessions/{end['session_id']}")).json()
    assert record["status"] == "completed"
    assert record["audio_duration_seconds"] == pytest.approx(sample.seconds)
    assert record["utterance_count"] == len(end["segments"])
    assert record["word_count"] == len(end["transcript"].split())
    assert record["audio_uri"] == end["audio_uri"]
    assert record["audio_uri"].endswith(f"/sessions/{end['session_id']}/audio.wav")
    assert record["transcript_uri"].endswith(f"/sessions/{end['session_id']}/transcript.json")
    assert record["audio_url"] == f"/v1/realtime/sessions/{end['session_id']}/audio"
    assert record["client_ip"] == "127.0.0.1"
    started, ended = (datetime.fromisoformat(record[name]) for name in ("started_at", "ended_at"))
    assert started < ended <= datetime.now(UTC)
    assert "error" not in record


async def test_the_newest_session_is_first_in_the_paged_list(outcome_of_sample: Outcome, client: Client) -> None:
    newest = await client.transcribe()
    first = (await client.http.get("/v1/realtime/sessions", params={"limit": 1})).json()
    assert [s["id"] for s in first["sessions"]] == [newest.messages[0]["session_id"]]
    assert first["pagination"]["total"] >= 2
    seen, cursor = [], first["pagination"]["next_cursor"]
    while cursor and len(seen) < 50:
        page = (await client.http.get("/v1/realtime/sessions", params={"limit": 1, "cursor": cursor})).json()
        seen += [s["id"] for s in page["sessions"]]
        cursor = page["pagination"].get("next_cursor")
    assert outcome_of_sample.messages[0]["session_id"] in seen
    since = first["sessions"][0]["started_at"]
    assert (await client.http.get("/v1/realtime/sessions", params={"until": since})).json()["pagination"]["total"] == (
        first["pagination"]["total"] - 1
    )


async def test_delete_removes_the_row_and_the_objects(client: Client, sample: Sample) -> None:
    outcome = await client.transcribe(*chunks(sample.pcm[:32_000].tobytes()), **STORED)
    path = f"/v1/realtime/sessions/{outcome.messages[0]['session_id']}"
    deleted = await client.http.delete(path)
    assert deleted.json() == {"deleted": True, "session_id": outcome.messages[0]["session_id"]}
    for gone in ("", "/audio", "/transcript"):
        response = await client.http.get(path + gone)
        assert (response.status_code, response.json()["code"]) == (404, 5)
    assert (await client.http.delete(path)).status_code == 404
    assert await _objects(client, outcome.messages[0]["session_id"]) == []


async def _objects(client: Client, session_id: str) -> list[str]:
    import aioboto3

    s3 = client.stack.s3
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        region_name=s3.region,
    ) as objects:
        listed = await objects.list_objects_v2(Bucket=s3.bucket, Prefix=f"sessions/{session_id}/")
        return [item["Key"] for item in listed.get("Contents", [])]


@pytest.mark.parametrize(
    ("encoding", "subtype", "rate", "channels"),
    [
        ("mulaw", "ULAW", 8000, 1),
        ("alaw", "ALAW", 8000, 2),
        ("pcm_f32le", "FLOAT", 44100, 2),
        ("pcm_s16le", "PCM_16", 48000, 1),
    ],
)
async def test_every_encoding_is_transcribed_and_stored_as_sent(
    client: Client, sample: Sample, encoding: str, subtype: str, rate: int, channels: int
) -> None:
    import soxr

    speech = soxr.resample(sample.pcm[: 16_000 * 9].astype(np.float32) / 32768, 16_000, rate)
    raw = io.BytesIO()
    soundfile.write(raw, np.repeat(speech[:, None], channels, 1), rate, format="RAW", subtype=subtype)
    frame = channels * {"ULAW": 1, "ALAW": 1, "FLOAT": 4, "PCM_16": 2}[subtype]
    outcome = await client.transcribe(
        *chunks(raw.getvalue(), 1000 * frame),
        encoding=encoding, sample_rate=rate, channels=channels, language="en", store_audio="true",
    )  # fmt: skip
    end = outcome.one("session.end")
    assert "leisure to consider" in end["transcript"].lower()
    assert end["total_duration"] == len(speech) / rate
    wav = (await client.http.get(f"/v1/realtime/sessions/{end['session_id']}/audio")).content
    assert wav[-len(raw.getvalue()) :] == raw.getvalue()
    info = soundfile.info(io.BytesIO(wav))
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (rate, channels, subtype, len(speech))


async def test_a_flush_is_answered_after_all_finals_before_it(client: Client, sample: Sample) -> None:
    speech = sample.pcm[: 16_000 * 4]
    outcome = await client.transcribe(*chunks(speech.tobytes()), '{"type":"flush"}', '{"type":"keepalive"}')
    kinds = [m["type"] for m in outcome.messages]
    assert kinds.index("transcript.final") < kinds.index("flushed")
    assert outcome.one("flushed")["timestamp"] == 4.0


async def test_the_language_can_change_in_mid_stream(client: Client, sample: Sample) -> None:
    speech = chunks(sample.pcm[: 16_000 * 9].tobytes())
    outcome = await client.transcribe(
        *speech, '{"type":"flush"}', '{"type":"config","language":"es"}', *speech, language="en"
    )
    languages = [final["language"] for final in outcome.of("transcript.final")]
    assert (languages[0], languages[-1]) == ("en", "es")


async def test_a_disconnected_session_is_interrupted_and_its_speech_stored(client: Client, sample: Sample) -> None:
    async with client.open(**STORED, language="en") as socket:
        session_id = (await socket.recv()).split('"session_id":"')[1][:37]
        sent = sample.pcm[: 16_000 * 5].tobytes()
        for chunk in chunks(sent):
            await socket.send(chunk)
        await asyncio.sleep(1)
        socket.transport.abort()
    path = f"/v1/realtime/sessions/{session_id}"
    record = {}
    for _ in range(100):
        record = (await client.http.get(path)).json()
        if record["status"] != "active" and "transcript_uri" in record:
            break
        await asyncio.sleep(0.1)
    assert record["status"] == "interrupted"
    assert audio_bytes((await client.http.get(f"{path}/audio")).content) == sent
    assert "leisure" in (await client.http.get(f"{path}/transcript")).json()["text"]


async def test_all_audio_before_a_clean_close_is_stored(client: Client, sample: Sample) -> None:
    sent = sample.pcm[: 16_000 * 10].tobytes()
    async with client.open(store_audio="true") as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        for chunk in chunks(sent):
            await socket.send(chunk)
    path = f"/v1/realtime/sessions/{session_id}"
    record = {}
    for _ in range(200):
        record = (await client.http.get(path)).json()
        if record["status"] != "active" and "audio_uri" in record:
            break
        await asyncio.sleep(0.1)
    assert record["status"] == "interrupted"
    assert audio_bytes((await client.http.get(f"{path}/audio")).content) == sent


async def test_a_running_session_is_listed_and_cannot_be_deleted(client: Client) -> None:
    async with client.open(store_audio="true") as socket:
        session_id = (await socket.recv()).split('"session_id":"')[1][:37]
        path = f"/v1/realtime/sessions/{session_id}"
        active = (await client.http.get("/v1/realtime/sessions", params={"status": "active"})).json()
        assert session_id in [s["id"] for s in active["sessions"]]
        assert (
            "ended_at" not in (await client.http.get(path)).json()
            or (await client.http.get(path)).json()["ended_at"] is None
        )
        for response in (await client.http.delete(path), await client.http.get(f"{path}/audio")):
            assert (response.status_code, response.json()["code"]) == (409, 10)
            assert response.json()["details"][0]["reason"] == "SESSION_ACTIVE"


async def test_a_grpc_client_gets_the_same_results(client: Client, sample: Sample) -> None:
    async def requests():  # type: ignore[no-untyped-def]
        yield TranscribeRequest(config=TranscribeConfig(language="en", store_audio=True))
        for chunk in chunks(sample.pcm[: 16_000 * 9].tobytes()):
            yield TranscribeRequest(audio=chunk)

    async with grpc.aio.insecure_channel(client.stack.grpc_target) as channel:
        stub = transcription_pb2_grpc.TranscriptionServiceStub(channel)
        responses = [response async for response in stub.Transcribe(requests())]
        end = responses[-1].session_end
        assert "leisure to consider" in end.transcript.lower()
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        record = await sessions.GetSession(session_pb2.GetSessionRequest(session_id=end.session_id))
        assert record.status == "completed"
        audio = sessions.GetAudio(session_pb2.GetAudioRequest(session_id=end.session_id))
        wav = b"".join([part.data async for part in audio])
        assert audio_bytes(wav) == sample.pcm[: 16_000 * 9].tobytes()


async def test_grpc_web_reaches_the_same_service(client: Client) -> None:
    message = session_pb2.ListSessionsRequest(limit=1).SerializeToString()
    response = await client.http.post(
        "/dalston.v1.SessionService/ListSessions",
        content=b"\0" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert response.status_code == 200
    length = int.from_bytes(response.content[1:5], "big")
    answer = session_pb2.ListSessionsResponse.FromString(response.content[5 : 5 + length])
    assert answer.pagination.limit == 1
    assert b"grpc-status:0" in response.content[5 + length :]


async def test_a_client_without_stubs_calls_by_reflection(client: Client) -> None:
    buf = Path(sys.executable).parent / "buf"
    url = f"{client.stack.base_url}/dalston.v1.SessionService/ListSessions"
    called = await asyncio.to_thread(
        subprocess.run,
        [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", '{"limit": 1}', url],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr
    assert '"pagination"' in called.stdout
