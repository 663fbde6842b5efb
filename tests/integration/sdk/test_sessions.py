"""Records of sessions through the SDK and Envoy."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dalston import AsyncClient, Client, InvalidRequest, JobActive, JobRunning, NotFound, SessionStatus

from domain.session_id import parse_session_id
from domain.transcript import Utterance as StoredUtterance
from stack.supervisor import Stack
from tests.integration.sdk.conftest import RATE, Speech, frames_of, wav_of
from tests.versions import versions_of

UNKNOWN = "sess_" + "0" * 32
SHORT = 8 * RATE


@pytest.fixture(scope="module")
def stored(client: Client, speech: Speech) -> list[str]:
    """Three completely stored sessions, oldest first."""
    ids = []
    for _ in range(3):
        wav = wav_of(speech.pcm[: 2 * SHORT])
        with client.transcribe(wav, store_audio=True, store_transcript=True, language="en") as stream:
            stream.wait()
        ids.append(stream.session_ids[0])
    deadline = time.monotonic() + 30
    while not all(client.sessions.get(each).transcript_uri for each in ids):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return ids


def test_sessions_are_listed_newest_first_over_pages(
    client: Client, stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dalston.async_sessions.PAGE", 2)
    listed = [session.id for session in client.sessions.list()]
    assert [each for each in listed if each in stored] == stored[::-1]
    assert len(listed) == len(set(listed))
    assert [session.id for session in client.sessions.list(limit=3)] == listed[:3]
    page = client.sessions.page(limit=1)
    assert page.total == len(listed)
    assert client.sessions.page(limit=1, cursor=page.next_cursor).sessions[0].id == listed[1]


def test_list_is_filtered(client: Client, stored: list[str]) -> None:
    middle = client.sessions.get(stored[1])
    assert middle.started_at is not None
    since = [session.id for session in client.sessions.list(since=middle.started_at)]
    assert stored[1] in since
    assert stored[0] not in since
    until = [session.id for session in client.sessions.list(until=middle.started_at, status=SessionStatus.COMPLETED)]
    assert stored[0] in until
    assert stored[1] not in until
    assert not list(client.sessions.list(since=datetime.now(UTC) + timedelta(days=1)))
    with pytest.raises(InvalidRequest) as refused:
        list(client.sessions.list(status="asleep"))
    assert refused.value.parameter == "status"


def test_session_has_its_statistics(client: Client, stored: list[str]) -> None:
    session = client.sessions.get(stored[0])
    assert session.status is SessionStatus.COMPLETED
    assert session.audio_duration_seconds == 8.0
    assert session.store_audio
    assert session.utterance_count > 0
    assert session.ended_at is not None
    assert session.started_at is not None
    assert session.started_at < session.ended_at <= datetime.now(UTC)
    assert session.previous_session_id is None


def test_audio_is_read_saved_and_iterated_over(
    client: Client, stored: list[str], speech: Speech, tmp_path: Path
) -> None:
    audio = client.sessions.audio(stored[0])
    whole = audio.read()
    assert frames_of(whole) == speech.pcm[: 2 * SHORT]
    assert b"".join(audio) == whole
    assert audio.save(tmp_path / "audio.wav") == len(whole)
    assert (tmp_path / "audio.wav").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["audio.wav"]


def test_audio_is_read_from_an_offset(client: Client, stored: list[str]) -> None:
    whole = client.sessions.audio(stored[0]).read()
    rest = client.sessions.audio(stored[0], start=1000)
    assert (rest.read(), rest.start, rest.size) == (whole[1000:], 1000, len(whole))
    with pytest.raises(InvalidRequest) as refused:
        client.sessions.audio(stored[0], start=len(whole)).read()
    assert refused.value.reason == "INVALID_RANGE"


def test_job_of_a_recording_is_followed_to_its_end(client: Client, stored: list[str]) -> None:
    with pytest.raises(NotFound) as refused:
        client.sessions.enhancement(stored[0])
    assert refused.value.reason == "NO_ENHANCEMENT"
    job = client.sessions.enhance(stored[0], language="en", vocabulary=["Dashwood"])
    assert (job.status, job.session_id, job.language, job.vocabulary) == ("queued", stored[0], "en", ("Dashwood",))
    assert job.audio_duration_seconds == 8.0
    with pytest.raises(JobRunning) as other:
        client.sessions.enhance(stored[0])
    assert other.value.job_id == job.id
    with pytest.raises(JobActive):
        client.jobs.retry(job.id)
    assert [each.id for each in client.jobs.list(session_id=stored[0])] == [job.id]
    changes = client.jobs.watch(job.id)
    assert next(changes).status == "queued"
    assert client.jobs.cancel(job.id).status == "canceled"
    assert [each.status for each in changes][-1] == "canceled"
    again = client.jobs.retry(job.id)
    assert (again.vocabulary, again.status) == (("Dashwood",), "queued")
    assert client.sessions.enhancement(stored[0]).id == again.id
    assert client.sessions.get(stored[0]).enhancement_job_id == again.id
    client.jobs.cancel(again.id)
    assert client.jobs.wait(again.id, timeout=10).status == "canceled"


def test_transcript_is_read(client: Client, stored: list[str]) -> None:
    transcript = client.sessions.transcript(stored[0])
    assert transcript.session_id == stored[0]
    assert transcript.language == "en"
    assert transcript.duration == 8.0
    assert transcript.text == " ".join(utterance.text for utterance in transcript.utterances)
    assert all(0 <= u.start < u.end <= 8.0 and 0 < u.confidence <= 1 for u in transcript.utterances)


def test_deleted_session_is_not_found(client: Client, speech: Speech) -> None:
    with client.transcribe(wav_of(speech.pcm[: 2 * RATE]), store_audio=True) as stream:
        stream.wait()
    (session_id,) = stream.session_ids
    client.sessions.delete(session_id)
    for call in (client.sessions.get, client.sessions.delete, client.sessions.transcript):
        with pytest.raises(NotFound) as gone:
            call(session_id)
        assert gone.value.reason == "SESSION_NOT_FOUND"
    with pytest.raises(NotFound):
        client.sessions.audio(session_id).read()


def test_unknown_session_is_not_found_and_malformed_id_is_rejected(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.sessions.get(UNKNOWN)
    with pytest.raises(NotFound):
        client.sessions.audio(UNKNOWN).save(tmp_path / "audio.wav")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidRequest):
        client.sessions.get("yesterday's")


BETTER = (StoredUtterance(0.5, 3.0, "Better words.", 0.9, "en"), StoredUtterance(3.5, 6.0, "And more.", 0.9, "en"))


async def _plant(stack: Stack, session_id: str) -> None:
    async with versions_of(stack) as writer:
        await writer.version(parse_session_id(session_id), 2, BETTER, seconds=8.0)
        await writer.version(parse_session_id(session_id), 3, BETTER[:1], seconds=8.0, verdict="doubtful")


def test_versions_are_listed_read_chosen_and_deleted(client: Client, stack: Stack, stored: list[str]) -> None:
    session_id = stored[1]
    live = client.sessions.transcript(session_id)
    assert (live.version, live.model, live.kind) == (None, None, None)
    asyncio.run(_plant(stack, session_id))
    listed = client.sessions.transcripts(session_id)
    assert [(each.version, each.kind, each.is_current) for each in listed] == [
        (1, "live", False),
        (2, "enhanced", True),
        (3, "enhanced", False),
    ]
    better = client.sessions.transcript(session_id)
    assert (better.text, better.version, better.model, better.kind) == (
        "Better words. And more.",
        2,
        "accurate",
        "enhanced",
    )
    assert client.sessions.transcript(session_id, version=1) == live
    assert client.sessions.export(session_id, "txt", version=3) == "Better words.\n"
    assert [each.text for each in client.sessions.utterances(session_id, version=2)] == ["Better words.", "And more."]
    assert [each.text for each in client.sessions.utterances(session_id)] == [each.text for each in live.utterances]
    assert client.sessions.set_current_transcript(session_id, 3).is_current
    assert client.sessions.transcript(session_id).version == 3
    client.sessions.delete_transcript(session_id, 3)
    assert client.sessions.get(session_id).transcript_version == 2
    for call in (client.sessions.delete_transcript, client.sessions.set_current_transcript):
        with pytest.raises(NotFound) as missing:
            call(session_id, 3)
        assert missing.value.reason == "TRANSCRIPT_NOT_FOUND"
    with pytest.raises(InvalidRequest) as refused:
        client.sessions.delete_transcript(session_id, 1)
    assert refused.value.parameter == "version"


async def test_the_asynchronous_client_has_the_same_calls(
    async_client: AsyncClient, stack: Stack, stored: list[str]
) -> None:
    session_id = stored[2]
    await _plant(stack, session_id)
    assert [each.version for each in await async_client.sessions.transcripts(session_id)] == [1, 2, 3]
    assert (await async_client.sessions.set_current_transcript(session_id, 1)).kind == "live"
    assert (await async_client.sessions.transcript(session_id)).version is None
    await async_client.sessions.delete_transcript(session_id, 2)
    assert [each.version for each in await async_client.sessions.transcripts(session_id)] == [1, 3]
