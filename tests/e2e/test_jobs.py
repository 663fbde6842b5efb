"""Batch jobs through the real Envoy, over the WebSocket, REST and gRPC; no worker runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from dalston.v1 import job_pb2, job_pb2_grpc

from tests.e2e.conftest import Client, Sample, chunks
from tests.e2e.harness import Harness, bearer, grpc_bearer, until

SESSIONS = "/v1/realtime/sessions"
JOBS = "/v1/jobs"
STORED = {"store_audio": "true", "enhance_on_end": "true"}


async def enhanced(client: Client, sample: Sample, **parameters: str) -> tuple[str, str]:
    """The ids of a session with `enhance_on_end` and of its job, as `session.end` names them."""
    outcome = await client.transcribe(*chunks(sample.pcm[: 2 * sample.rate].tobytes()), **{**STORED, **parameters})
    end = outcome.one("session.end")
    return end["session_id"], end["enhancement_job_id"]


async def test_the_end_of_a_session_creates_the_job_that_it_names(client: Client, sample: Sample) -> None:
    session_id, job_id = await enhanced(client, sample, language="en", vocabulary='["Dashwood", "Norland"]')
    assert job_id == session_id.replace("sess_", "job_")
    job = (await client.http.get(f"{JOBS}/{job_id}")).json()
    assert (job["session_id"], job["kind"], job["status"], job["model"]) == (
        session_id,
        "enhance",
        "queued",
        "accurate",
    )
    assert (job["language"], job["vocabulary"], job["linked"]) == ("en", ["Dashwood", "Norland"], False)
    assert (job["step"], job["progress"], job["attempts"]) == ("worker", 0, 0)
    assert job["audio_duration_seconds"] == 2
    assert job["queue_position"] >= 0
    assert (await client.http.get(f"{SESSIONS}/{session_id}/enhancement")).json()["id"] == job_id
    session = (await client.http.get(f"{SESSIONS}/{session_id}")).json()
    assert (session["enhancement_job_id"], session["enhancement_status"]) == (job_id, "queued")
    assert (session["enhancement_step"], session["enhancement_progress"]) == ("worker", 0)
    listed = (await client.http.get(JOBS, params={"session_id": session_id})).json()
    assert [each["id"] for each in listed["jobs"]] == [job_id]


async def test_a_client_that_disappears_leaves_a_job(client: Client, sample: Sample) -> None:
    async with client.open(**STORED) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        for chunk in chunks(sample.pcm[: 2 * sample.rate].tobytes()):
            await socket.send(chunk)
        socket.transport.abort()

    async def is_created() -> bool:
        answer = await client.http.get(f"{SESSIONS}/{session_id}/enhancement")
        return answer.status_code == 200

    await until(is_created, 40)
    job = (await client.http.get(f"{SESSIONS}/{session_id}/enhancement")).json()
    assert job["id"] == session_id.replace("sess_", "job_")


async def test_a_continued_session_leaves_one_job_of_the_joined_recording(client: Client, sample: Sample) -> None:
    first, first_job = await enhanced(client, sample)
    second, second_job = await enhanced(client, sample, resume_session_id=first)
    job = (await client.http.get(f"{JOBS}/{first_job}")).json()
    assert (job["status"], job["error_code"]) == ("canceled", "continued")
    job = (await client.http.get(f"{JOBS}/{second_job}")).json()
    assert (job["status"], job["linked"], job["session_id"]) == ("queued", True, second)
    assert job["audio_duration_seconds"] == pytest.approx(4, abs=0.2)


async def test_a_job_is_asked_for_canceled_and_repeated(client: Client, sample: Sample) -> None:
    session_id, first = await enhanced(client, sample)
    enhance = f"{SESSIONS}/{session_id}/enhance"
    refused = await client.http.post(enhance)
    assert refused.status_code == 409
    (detail,) = refused.json()["details"]
    assert (detail["reason"], detail["metadata"]) == ("ENHANCEMENT_RUNNING", {"job_id": first})
    assert (await client.http.post(f"{JOBS}/{first}/retry")).json()["details"][0]["reason"] == "JOB_ACTIVE"
    canceled = await client.http.delete(f"{JOBS}/{first}")
    assert canceled.status_code == 200
    assert (canceled.json()["status"], canceled.json()["cancel_requested"]) == ("canceled", True)
    assert (await client.http.delete(f"{JOBS}/{first}")).json() == canceled.json()
    made = await client.http.post(enhance, json={"language": "es", "vocabulary": ["Elinor"], "model": "fast"})
    assert made.status_code == 200, made.text
    job = made.json()
    assert (job["language"], job["vocabulary"], job["model"], job["status"]) == ("es", ["Elinor"], "fast", "queued")
    await client.http.delete(f"{JOBS}/{job['id']}")
    again = (await client.http.post(f"{JOBS}/{job['id']}/retry")).json()
    assert again["id"] not in (first, job["id"])
    assert (again["language"], again["vocabulary"], again["model"]) == ("es", ["Elinor"], "fast")
    session = (await client.http.get(f"{SESSIONS}/{session_id}")).json()
    assert session["enhancement_job_id"] == again["id"]


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        ({"model": "huge"}, "INVALID_MODEL", "huge"),
        ({"language": "klingon"}, "INVALID_PARAMETERS", "klingon"),
        ({"vocabulary": ["x"] * 101}, "INVALID_PARAMETERS", "at most 100"),
        ({"vocabulary": [""]}, "INVALID_PARAMETERS", "1 to 50"),
        ({"speed": 2}, "INVALID_PARAMETERS", "speed"),
    ],
)
async def test_a_request_is_checked_as_a_stream_is(
    client: Client, sample: Sample, body: dict[str, Any], reason: str, words: str
) -> None:
    session = "sess_" + "0" * 32
    answer = await client.http.post(f"{SESSIONS}/{session}/enhance", json=body)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["reason"] == reason
    assert words in answer.json()["message"]


async def test_a_session_without_audio_or_job_is_not_found(client: Client, sample: Sample) -> None:
    outcome = await client.transcribe(*chunks(sample.pcm[: sample.rate].tobytes()), store_transcript="true")
    end = outcome.one("session.end")
    assert "enhancement_job_id" not in end
    for verb, what, reason in (
        ("POST", "enhance", "AUDIO_NOT_STORED"),
        ("GET", "enhancement", "NO_ENHANCEMENT"),
    ):
        answer = await client.http.request(verb, f"{SESSIONS}/{end['session_id']}/{what}")
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, reason)


@pytest.mark.parametrize("events", [True, False], ids=["server-sent events", "lines of JSON"])
async def test_a_watch_shows_changes_until_the_end(client: Client, sample: Sample, events: bool) -> None:
    _, job_id = await enhanced(client, sample)
    headers = {"accept": "text/event-stream"} if events else {}
    seen = []
    async with client.http.stream("GET", f"{JOBS}/{job_id}:watch", headers=headers, timeout=40) as answer:
        assert answer.status_code == 200
        wanted = "text/event-stream" if events else "application/x-ndjson"
        assert answer.headers["content-type"] == wanted
        async for line in answer.aiter_lines():
            if not line:
                continue
            assert line.startswith("data: ") is events
            seen.append(json.loads(line.removeprefix("data: ")))
            if len(seen) == 1:
                assert seen[0]["status"] == "queued"
                await client.http.delete(f"{JOBS}/{job_id}")
    assert [job["status"] for job in seen] == ["queued", "canceled"]
    assert (await client.http.head(f"{JOBS}/{job_id}:watch")).status_code == 200


async def test_watches_of_jobs_and_sessions_show_the_progress_of_a_worker(harness: Harness) -> None:
    key = await harness.make_tenant("watched jobs", "realtime", "sessions:read", "sessions:write")
    async with harness.connect("store_audio=true&enhance_on_end=true", key) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        await socket.send(bytes(32_000))
        await socket.send('{"type":"end"}')
        async for text in socket:
            if json.loads(text)["type"] == "session.end":
                job_id = json.loads(text)["enhancement_job_id"]
    # Without a lease of its worker the server would queue the job again.
    await harness.database.execute(
        "INSERT INTO workers (id, started_at, lease_expires_at, kind, host)"
        " VALUES ('w', now(), now() + interval '1 hour', 'worker', 'elsewhere')"
    )
    stub = job_pb2_grpc.JobServiceStub(harness.channel)  # type: ignore[no-untyped-call]
    watch = stub.WatchJob(job_pb2.WatchJobRequest(job_id=job_id), metadata=grpc_bearer(key), timeout=40)
    steps = [
        ("queued", 0.0, ""),
        ("running", 0.0, "status = 'running', worker_id = 'w', started_at = now()"),
        ("running", 0.5, "done_seconds = audio_seconds / 2, step = 'transcribing', rate = 2"),
        ("completed", 1.0, "status = 'completed', worker_id = NULL, ended_at = now()"),
    ]
    for status, progress, change in steps:
        if change:
            statement = f"UPDATE transcription_jobs SET {change} WHERE id = $1"  # noqa: S608
            await harness.database.execute(statement, job_id.removeprefix("job_"))
        async with asyncio.timeout(20):
            job = await watch.read()
        assert (job.status, job.progress) == (status, progress)
        if progress == 0.5:
            assert job.eta_seconds == 0.25
            session = await harness.http.get(f"{SESSIONS}/{session_id}", headers=bearer(key))
            assert session.json()["enhancement_progress"] == 0.5
            assert session.json()["enhancement_step"] == "transcribing"
    assert await watch.read() is grpc.aio.EOF
    await harness.database.execute("DELETE FROM workers WHERE id = 'w'")


async def test_a_tenant_has_a_limit_of_queued_jobs(harness: Harness) -> None:
    key = await harness.make_tenant("few jobs", "realtime", "sessions:read", "sessions:write", max_queued_jobs=0)
    async with harness.connect("store_audio=true", key) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        await socket.send(bytes(32_000))
        await socket.send('{"type":"end"}')
        async for _ in socket:
            pass
    answer = await harness.http.post(f"{SESSIONS}/{session_id}/enhance", headers=bearer(key))
    assert answer.status_code == 429
    assert answer.json()["details"][0]["reason"] == "TOO_MANY_JOBS"
