"""Invalid input on every interface gets a clear error and harms nothing else."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import PATH, Client, Sample, audio_bytes, chunks

STORED = {"store_audio": "true", "store_transcript": "true"}
JOB = "job_" + "0" * 32
SESSION = "sess_0190b4b4b4b47b4b8b4bb4b4b4b4b4b4"


@pytest.mark.parametrize(
    ("parameters", "code", "words"),
    [
        ({"sample_rat": 16000}, "invalid_parameters", "sample_rat"),
        ({"sample_rate": "fast"}, "invalid_parameters", "sample_rate"),
        ({"sample_rate": 100}, "invalid_parameters", "from 8000 to 48000"),
        ({"channels": 0}, "invalid_parameters", "channels"),
        ({"encoding": "mp3"}, "invalid_parameters", "pcm_s16le"),
        ({"language": "klingon"}, "invalid_parameters", "klingon"),
        ({"model": "huge"}, "invalid_model", "huge"),
        ({"vad_threshold": "nan"}, "invalid_parameters", "vad_threshold"),
        ({"max_utterance_duration": 29}, "invalid_parameters", "from 1 to 28"),
        ({"store_audio": "perhaps"}, "invalid_parameters", "store_audio"),
        ({"vocabulary": "[1]"}, "invalid_parameters", "vocabulary"),
        ({"enhance_on_end": "true"}, "invalid_parameters", "needs store_audio"),
        ({"resume_session_id": "sess_0"}, "invalid_parameters", "resume_session_id"),
    ],
)
async def test_an_invalid_parameter_closes_the_socket_with_the_reason(
    client: Client, parameters: dict[str, Any], code: str, words: str
) -> None:
    outcome = await client.transcribe(**parameters)
    error = outcome.one("error")
    assert outcome.close_code == 4400
    assert error["code"] == code
    assert words in error["message"]
    assert error["recoverable"] is False


@pytest.mark.parametrize(
    ("frame", "close", "code"),
    [
        ("no json", 4400, "invalid_message"),
        ("[]", 4400, "invalid_message"),
        ('{"type":"dance"}', 4400, "invalid_message"),
        ('{"type":"config","sample_rate":8000}', 4400, "invalid_message"),
        ('{"type":"config","language":"xx"}', 4400, "invalid_parameters"),
        (b"abc", 4400, "invalid_audio"),
        (b"a" * 65_538, 1009, "message_too_big"),
    ],
)
async def test_an_invalid_message_closes_the_socket_with_the_reason(
    client: Client, frame: bytes | str, close: int, code: str
) -> None:
    outcome = await client.transcribe(frame)
    assert (outcome.close_code, outcome.one("error")["code"]) == (close, code)


async def test_audio_before_an_invalid_message_is_stored(client: Client, sample: Sample) -> None:
    outcome = await client.transcribe(
        *chunks(sample.pcm[: 16_000 * 5].tobytes()),
        b"abc",
        b"abcd",
        store_audio="true",
        store_transcript="true",
        language="en",
    )
    assert outcome.of("transcript.final")
    path = f"/v1/realtime/sessions/{outcome.messages[0]['session_id']}"
    record = (await client.http.get(path)).json()
    assert record["status"] == "error"
    assert record["audio_duration_seconds"] == 5
    assert record["error"].startswith("invalid_audio: 3 bytes")
    assert audio_bytes((await client.http.get(f"{path}/audio")).content) == sample.pcm[: 16_000 * 5].tobytes()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/realtime/sessions?limit=0", 400, "limit"),
        ("/v1/realtime/sessions?limit=101", 400, "limit"),
        ("/v1/realtime/sessions?limit=many", 400, "limit"),
        ("/v1/realtime/sessions?offset=-1", 400, "offset"),
        ("/v1/realtime/sessions?since=yesterday", 400, "since"),
        ("/v1/realtime/sessions?status=asleep", 400, "status"),
        ("/v1/realtime/sessions?cursor=abc", 400, "cursor"),
        ("/v1/realtime/sessions?colour=red", 400, "colour"),
        ("/v1/realtime/sessions/42", 400, "session id"),
        (f"/v1/realtime/sessions/{SESSION}", 404, "session"),
        (f"/v1/realtime/sessions/{SESSION}/audio", 404, "session"),
        (f"/v1/realtime/sessions/{SESSION}/export/srt", 404, "session"),
        (f"/v1/realtime/sessions/{SESSION}/enhancement", 404, "session"),
        (f"/v1/realtime/sessions/{SESSION}/transcripts", 501, "not supported"),
        ("/v1/jobs?status=asleep", 400, "status"),
        ("/v1/jobs?kind=other", 400, "kind"),
        ("/v1/jobs?session_id=42", 400, "session id"),
        ("/v1/jobs/42", 400, "job id"),
        (f"/v1/jobs/{JOB}", 404, "job"),
        (f"/v1/jobs/{JOB}:watch", 404, "job"),
        ("/v1/realtime/sessions:watch?status=asleep", 400, "status"),
        ("/v1/keys", 400, "without authentication"),
        ("/v1/nothing", 404, ""),
        ("/", 404, ""),
    ],
)
async def test_errors_of_rest_are_json(client: Client, path: str, status: int, words: str) -> None:
    response = await client.http.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["message"]
    assert words in body["message"]


@pytest.mark.parametrize("path", ["/v1/realtime/sessions?status=%ff", "/v1/realtime/sessions/%c3%28"])
async def test_an_undecodable_body_is_an_error_of_the_client(client: Client, path: str) -> None:
    response = await client.http.get(path)
    assert response.status_code == 400
    assert response.json()["message"]


async def test_a_client_does_not_control_timeouts_and_retries_of_envoy(client: Client) -> None:
    headers = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "30", "x-envoy-retry-on": "5xx"}
    response = await client.http.get("/v1/realtime/sessions", headers=headers)
    assert response.status_code == 200


async def test_a_plain_get_of_the_stream_is_a_426(client: Client) -> None:
    response = await client.http.get(PATH)
    assert response.status_code == 426
    assert "websocket" in json.dumps(response.json()).lower()
