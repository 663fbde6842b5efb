"""Recordings and files that the worker of a real stack transcribes, as a client of each interface sees them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from dalston import Client as SdkClient
from dalston import JobStatus, UnsupportedMedia
from rich.console import Console

from stack import demo
from stack.ports import free_port
from stack.settings import ROOT, StackSettings
from stack.supervisor import Stack, running_stack
from tests.e2e.conftest import Client, Sample, chunks
from tests.integration.cli.conftest import environment
from tests.words import word_error_rate

SAMPLE = ROOT / "samples" / "sense-and-sensibility.flac"
SESSIONS = "/v1/realtime/sessions"
JOB_SECONDS = 300
MOST_WRONG = 0.1
PIECE_SECONDS = 7.5
GUIDE_SECONDS = 5

# The model is loaded with the first job, and the machine may be busy.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, weights_cache: Path) -> Iterator[Stack]:
    settings = StackSettings(
        home=tmp_path_factory.mktemp("worker"),
        host="127.0.0.1",
        port=free_port(),
        auth="none",
        address_requests_per_second=1000,
        cache_dir=weights_cache,
        database_url=None,
        s3_endpoint_url=None,
        s3_bucket=None,
    )
    with pytest.MonkeyPatch.context() as patch:
        # Other tests share the machine: with the lowest weight a job would wait for all of them.
        patch.setenv("DALSTON_WORKER_PRIORITY", "normal")
        with running_stack(settings) as stack:
            yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    client = Client(stack)
    yield client
    await client.http.aclose()


@pytest.fixture(scope="module")
def sdk(stack: Stack) -> Iterator[SdkClient]:
    with SdkClient(stack.base_url) as client:
        yield client


@pytest.fixture(scope="module")
def content(piece: Path) -> bytes:
    return piece.read_bytes()


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first sentence of the sample, as a file."""
    speech, rate = soundfile.read(SAMPLE, dtype="int16", frames=int(PIECE_SECONDS * 16_000))
    path = tmp_path_factory.mktemp("piece") / "first sentence.flac"
    soundfile.write(path, speech, rate)
    return path


SPOKEN = (
    "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them."
)


async def ended_job(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        job: dict[str, Any] = (await http.get(path)).json()
        if job.get("ended_at") or time.monotonic() > deadline:
            return job
        await asyncio.sleep(0.5)


async def test_a_session_gets_a_better_transcript_beside_the_live_one(client: Client, sample: Sample) -> None:
    outcome = await client.transcribe(
        *chunks(sample.pcm.tobytes()), store_audio="true", store_transcript="true", enhance_on_end="true"
    )
    end = outcome.one("session.end")
    path = f"{SESSIONS}/{end['session_id']}"
    live = (await client.http.get(f"{path}/transcript?version=1")).json()
    job = await ended_job(client.http, f"{path}/enhancement")
    assert (job["id"], job["status"], job["version"], job["verdict"]) == (
        end["enhancement_job_id"],
        "completed",
        2,
        "accepted",
    )
    assert (job["progress"], job["attempts"]) == (1, 0)
    answer = await client.http.get(f"{path}/transcript")
    better = answer.json()
    assert answer.headers["x-transcript-version"] == "2"
    assert (better["version"], better["kind"], better["model"]) == (2, "enhanced", "accurate")
    assert word_error_rate(sample.text, better["text"]) <= MOST_WRONG
    assert all(utterance["words"] for utterance in better["utterances"])
    assert (await client.http.get(f"{path}/transcript?version=1")).json() == live
    versions = (await client.http.get(f"{path}/transcripts")).json()["transcripts"]
    assert [(each["version"], each["kind"], each["is_current"]) for each in versions] == [
        (1, "live", False),
        (2, "enhanced", True),
    ]
    session = (await client.http.get(path)).json()
    assert (session["transcript_version"], session["transcript_count"]) == (2, 2)
    assert session["word_count"] == len(better["text"].split())
    assert session["enhancement_status"] == "completed"
    captions = await client.http.get(f"{path}/export/srt")
    assert captions.headers["x-transcript-version"] == "2"
    assert (await client.http.delete(path)).status_code == 200
    for gone in (path, f"{path}/transcripts", f"/v1/jobs/{job['id']}"):
        assert (await client.http.get(gone)).status_code == 404


def test_a_file_is_transcribed_by_the_sdk_and_is_in_the_list(sdk: SdkClient, piece: Path) -> None:
    with sdk.transcribe_file(piece, vocabulary=["Dashwood"]) as transcription:
        utterances = list(transcription)
    transcript = transcription.transcript
    assert [each.text for each in utterances] == [each.text for each in transcript.utterances]
    assert word_error_rate(SPOKEN, transcript.text) <= MOST_WRONG
    session = sdk.sessions.get(transcript.session_id)
    assert (session.source, session.status) == ("upload", "completed")
    assert session.audio_duration_seconds == pytest.approx(PIECE_SECONDS, abs=0.01)
    assert (session.transcript_version, session.word_count) == (1, len(transcript.text.split()))
    assert transcript.session_id in [each.id for each in sdk.sessions.list()]
    assert sdk.sessions.audio(transcript.session_id).read() == piece.read_bytes()
    assert sdk.sessions.transcript(transcript.session_id).text == transcript.text
    # The same file again is the same job.
    assert sdk.transcribe_file(piece, vocabulary=["Dashwood"]).wait().session_id == transcript.session_id
    again = sdk.sessions.enhance(transcript.session_id, model="fast")
    assert sdk.jobs.wait(again.id, timeout=JOB_SECONDS).status is JobStatus.COMPLETED
    assert [each.version for each in sdk.sessions.transcripts(transcript.session_id)] == [1, 2]


def test_a_file_of_no_audio_is_refused(sdk: SdkClient, tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_text("#EXTM3U\nfile:///etc/passwd\n" * 1000)
    with pytest.raises(UnsupportedMedia, match="flac"):
        sdk.transcribe_file(tmp_path / "talk.mp3").wait()


async def test_the_file_is_downloaded_with_its_own_type(client: Client, sdk: SdkClient, content: bytes) -> None:
    session_id = sdk.transcribe_file(content).wait().session_id
    answer = await client.http.get(f"{SESSIONS}/{session_id}/audio")
    assert (answer.content, answer.headers["content-type"]) == (content, "audio/flac")
    assert answer.headers["content-disposition"] == f'attachment; filename="{session_id}.flac"'
    part = await client.http.get(f"{SESSIONS}/{session_id}/audio", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"fLaC")


async def test_a_damaged_file_fails_its_job_with_a_reason(client: Client, content: bytes) -> None:
    damaged = content[:50] + bytes(20_000)
    answer = await client.http.post(
        "/v1/audio/transcriptions",
        files={"file": ("a.flac", damaged)},
        data={"model": "whisper-1"},
        timeout=JOB_SECONDS,
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "file")
    assert error["message"]


@pytest.mark.parametrize("form", ["json", "text", "srt", "vtt", "verbose_json"])
async def test_openais_interface_answers_in_every_format(client: Client, content: bytes, form: str) -> None:
    answer = await client.http.post(
        "/v1/audio/transcriptions",
        files={"file": ("talk", content)},
        data={"model": "whisper-1", "response_format": form, "timestamp_granularities[]": ["word", "segment"]},
        timeout=JOB_SECONDS,
    )
    assert answer.status_code == 200, answer.text
    assert "Dashwood" in answer.text
    if form == "verbose_json":
        body = answer.json()
        assert (body["language"], body["task"]) == ("english", "transcribe")
        assert body["duration"] == pytest.approx(PIECE_SECONDS, abs=0.01)
        assert {"id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob"} <= set(
            body["segments"][0]
        )
        assert body["words"][0]["start"] >= 0


async def test_a_streamed_answer_of_openais_interface_ends_with_all_of_the_text(client: Client, content: bytes) -> None:
    deltas, done = [], None
    async with client.http.stream(
        "POST",
        "/v1/audio/transcriptions",
        files={"file": ("talk", content)},
        data={"model": "gpt-4o-transcribe", "stream": "true"},
        timeout=JOB_SECONDS,
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["type"] == "transcript.text.delta":
                deltas.append(event["delta"])
            else:
                done = event
    assert done is not None
    assert done["type"] == "transcript.text.done"
    assert "".join(deltas) == done["text"]
    assert "Dashwood" in done["text"]


def test_the_command_transcribes_a_file(stack: Stack, piece: Path) -> None:
    command = [str(Path(sys.executable).with_name("dalston")), "transcribe", str(piece), "-f", "srt"]
    environment = {**os.environ, "DALSTON_URL": stack.base_url}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=JOB_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("1\n00:00:0")
    assert "Dashwood" in ended.stdout


def test_the_commands_of_the_guide_run(stack: Stack, tmp_path: Path) -> None:
    speech, rate = soundfile.read(SAMPLE, dtype="int16", frames=GUIDE_SECONDS * 16_000)
    soundfile.write(tmp_path / "speech.wav", speech, rate)
    (tmp_path / "speech.raw").write_bytes(speech.tobytes())
    (tmp_path / "home").mkdir()
    guide = (ROOT / "docs" / "cli.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE))
    assert script.count("dalston ") >= 10
    ran = subprocess.run(
        ["bash", "-c", f"set -eu\n{script}"],
        cwd=tmp_path,
        env=environment(tmp_path / "home", stack.base_url),
        capture_output=True,
        text=True,
        timeout=JOB_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "session.wav").stat().st_size > GUIDE_SECONDS * 32_000
    assert (tmp_path / "session.vtt").read_text().startswith("WEBVTT")
    assert (tmp_path / "speech.srt").read_text().startswith("1\n")


def test_the_demo_shows_both_transcripts(stack: Stack, piece: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_SAMPLE", piece)
    shown = io.StringIO()
    demo.demo(stack, time.sleep, Console(file=shown, width=200))
    text = shown.getvalue()
    assert "version 2: enhanced" in text
    assert text.count("Dashwood") >= 5
