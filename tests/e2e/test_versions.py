"""The versions of transcripts through the real Envoy."""

import json
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import httpx
import numpy as np
import pytest
from dalston.v1.session_pb2 import GetTranscriptRequest, ListTranscriptsRequest
from dalston.v1.session_pb2_grpc import SessionServiceStub

from domain.session_id import parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID
from domain.transcript import TimedWord, Utterance
from persistence.postgres.chains import ChainStore
from tests.e2e.conftest import Client, Sample, chunks
from tests.e2e.harness import Harness, bearer
from tests.versions import versions_of

SESSIONS = "/v1/realtime/sessions"
STORED = {"store_audio": "true", "store_transcript": "true", "language": "en"}
BETTER = [
    Utterance(0.2, 2.0, "And better words.", 0.9, "en", words=(TimedWord("And", 0.2, 0.5, 0.9),)),
    Utterance(2.2, 3.9, "The same <voice>.", 0.9, "en", 0.8),
]
TEXT = "And better words.\nThe same <voice>.\n"


@dataclass
class Versions:
    """A stored session with its live transcript as it was before any other version."""

    http: httpx.AsyncClient
    path: str
    session_id: str
    live: httpx.Response

    async def get(self, file: str = "transcript", status: int = 200, **parameters: Any) -> httpx.Response:
        answer = await self.http.get(f"{self.path}/{file}", params=parameters)
        assert answer.status_code == status, answer.text
        return answer

    async def listed(self) -> list[tuple[int, bool]]:
        versions = (await self.get("transcripts")).json()["transcripts"]
        return [(each["version"], each["is_current"]) for each in versions]


async def a_session(client: Client, pcm: np.ndarray[Any, Any]) -> Versions:
    outcome = await client.transcribe(*chunks(pcm.tobytes()), **STORED)
    session_id = str(outcome.one("session.end")["session_id"])
    path = f"{SESSIONS}/{session_id}"
    return Versions(client.http, path, session_id, await client.http.get(f"{path}/transcript"))


@pytest.fixture
async def versions(client: Client, sample: Sample) -> Versions:
    """With an accepted version 2 and a doubtful version 3."""
    found = await a_session(client, sample.pcm[: 16_000 * 4])
    identifier = parse_session_id(found.session_id)
    async with versions_of(client.stack) as writer:
        await writer.version(identifier, 2, BETTER, seconds=4.0)
        await writer.version(identifier, 3, BETTER[:1], seconds=4.0, verdict="doubtful")
    return found


async def test_the_old_address_gives_the_better_text_and_the_live_one_stays_byte_for_byte(versions: Versions) -> None:
    assert versions.live.headers["x-transcript-version"] == "1"
    assert "version" not in versions.live.json()
    now = await versions.get()
    assert now.headers["x-transcript-version"] == "2"
    shape = now.json()
    assert {name: shape[name] for name in ("version", "model", "kind", "duration")} == {
        "version": 2,
        "model": "accurate",
        "kind": "enhanced",
        "duration": 4.0,
    }
    assert [each["text"] for each in shape["utterances"]] == [each.text for each in BETTER]
    live = await versions.get(version=1)
    assert (live.content, live.headers["etag"]) == (versions.live.content, versions.live.headers["etag"])
    assert live.headers["x-transcript-version"] == "1"
    assert (await versions.get(version=3)).json()["text"] == BETTER[0].text
    session = (await versions.http.get(versions.path)).json()
    assert (session["transcript_version"], session["transcript_count"], session["word_count"]) == (2, 3, 6)


async def test_versions_are_listed_with_what_is_known_of_them(versions: Versions) -> None:
    listed = (await versions.get("transcripts")).json()["transcripts"]
    assert [(each["version"], each["kind"], each["verdict"]) for each in listed] == [
        (1, "live", "accepted"),
        (2, "enhanced", "accepted"),
        (3, "enhanced", "doubtful"),
    ]
    assert listed[2]["verdict_reason"] == "fewer words than the live transcript"
    assert "job_id" not in listed[0]
    assert listed[1]["job_id"].startswith("job_")
    for each in listed:
        answer = await versions.http.get(each["url"])
        assert answer.headers["x-transcript-version"] == str(each["version"])


@pytest.mark.parametrize(
    ("name", "begin"),
    [("txt", "And better words.\n"), ("srt", "1\n00:00:00,200 -->"), ("vtt", "WEBVTT\n\n00:00:00.200 -->")],
)
async def test_every_export_takes_a_version(versions: Versions, name: str, begin: str) -> None:
    for parameters, version in (({}, "2"), ({"version": 2}, "2"), ({"version": 1}, "1"), ({"version": 3}, "3")):
        answer = await versions.get(f"export/{name}", **parameters)
        assert answer.headers["x-transcript-version"] == version
        assert answer.text.startswith(begin) == (version != "1")
        assert ("voice" in answer.text) == (version == "2")
    document = await versions.get("export/json", version=2)
    assert document.json() == (await versions.get(version=2)).json()


async def test_entity_tags_differ_between_versions_even_of_the_same_text(client: Client, versions: Versions) -> None:
    async with versions_of(client.stack) as writer:
        await writer.version(parse_session_id(versions.session_id), 4, BETTER, seconds=4.0, is_current=False)
    tags = {(await versions.get("export/txt", version=each)).headers["etag"] for each in (1, 2, 3, 4)}
    assert len(tags) == 4
    tag = (await versions.get("export/txt", version=2)).headers["etag"]
    for version, status in ((2, 304), (0, 304), (4, 200), (1, 200)):
        answer = await versions.http.get(
            f"{versions.path}/export/txt", params={"version": version}, headers={"if-none-match": tag}
        )
        assert answer.status_code == status
        assert answer.headers["x-transcript-version"] == str(version or 2)
    head = await versions.http.head(f"{versions.path}/export/txt", params={"version": 4})
    assert head.headers["x-transcript-version"] == "4"


async def test_utterances_are_those_of_the_live_transcript_unless_a_version_is_named(versions: Versions) -> None:
    live = (await versions.get("utterances")).json()
    assert [each["text"] for each in live["utterances"]] == [
        each["text"] for each in versions.live.json()["utterances"]
    ]
    page = (await versions.get("utterances", version=2, limit=1)).json()
    assert (page["utterances"][0]["text"], page["has_more"]) == (BETTER[0].text, True)
    page = (await versions.get("utterances", version=2, offset=1)).json()
    assert (page["utterances"][0]["index"], page["has_more"]) == (1, False)


async def test_a_tenant_accepts_a_doubtful_version_and_returns_to_the_live_one(versions: Versions) -> None:
    for version in (3, 1):
        chosen = await versions.http.post(f"{versions.path}/transcripts/{version}/current")
        assert chosen.status_code == 200, chosen.text
        assert (chosen.json()["version"], chosen.json()["is_current"]) == (version, True)
        assert (await versions.get()).headers["x-transcript-version"] == str(version)
    assert (await versions.get()).content == versions.live.content


async def test_a_deleted_version_is_gone_and_the_one_before_it_is_read(versions: Versions) -> None:
    deleted = await versions.http.delete(f"{versions.path}/transcripts/2")
    assert deleted.json() == {"deleted": True, "session_id": versions.session_id, "version": 2}
    assert await versions.listed() == [(1, True), (3, False)]
    assert (await versions.get()).content == versions.live.content
    missing = (await versions.get(status=404, version=2)).json()
    assert missing["details"][0]["reason"] == "TRANSCRIPT_NOT_FOUND"
    for verb, path, status in (
        ("DELETE", "transcripts/2", 404),
        ("POST", "transcripts/2/current", 404),
        ("DELETE", "transcripts/1", 400),
        ("GET", "utterances?version=2", 404),
        ("GET", "export/srt?version=2", 404),
        ("GET", "transcript?version=-1", 400),
    ):
        answer = await versions.http.request(verb, f"{versions.path}/{path}")
        assert answer.status_code == status, (path, answer.text)


async def test_the_joined_transcript_takes_a_version_too(client: Client, sample: Sample) -> None:
    first = await a_session(client, sample.pcm[: 16_000 * 6])
    last = await a_session(client, sample.pcm[16_000 * 6 : 16_000 * 12])
    first_id, last_id = parse_session_id(first.session_id), parse_session_id(last.session_id)
    database = await asyncpg.connect(client.stack.database_url)
    await database.execute(
        "UPDATE realtime_sessions SET previous_session_id = $1, resume_from_seconds = 6 WHERE id = $2",
        first_id,
        last_id,
    )
    await database.close()
    live = await last.get(linked="true")
    assert live.headers["x-transcript-version"] == "1"
    async with versions_of(client.stack) as writer:
        await writer.version(first_id, 2, BETTER)
        joined = await last.get(linked="true")
        assert "x-transcript-version" not in joined.headers
        assert joined.json()["text"].startswith("And better words. The same <voice>.")
        chain = await ChainStore(writer.database).read(DEFAULT_TENANT_ID, last_id, linked=True)
        await writer.version(last_id, 2, BETTER, chain=chain, seconds=12.0)
    whole = await last.get(linked="true")
    assert (whole.headers["x-transcript-version"], whole.json()["duration"]) == ("2", 12.0)
    assert (await last.get("export/txt", linked="true")).text == TEXT
    assert (await last.get(linked="true", version=1)).content == live.content
    (url,) = [each["url"] for each in (await last.get("transcripts")).json()["transcripts"] if each["linked"]]
    assert (await client.http.get(url)).content == whole.content
    refused = (await first.get(status=400, linked="true", version=-1)).json()
    assert refused["details"][0]["metadata"] == {"parameter": "version"}


async def test_grpc_names_the_version_in_its_metadata(client: Client, versions: Versions) -> None:
    async with grpc.aio.insecure_channel(client.stack.grpc_target) as channel:
        stub = SessionServiceStub(channel)
        call = stub.GetTranscript(GetTranscriptRequest(session_id=versions.session_id, version=3))
        body = b"".join([part.data async for part in call])
        metadata = dict(await call.initial_metadata() or ())
        assert (metadata["x-transcript-version"], json.loads(body)["version"]) == ("3", 3)
        answer = await stub.ListTranscripts(ListTranscriptsRequest(session_id=versions.session_id))
        assert [each.version for each in answer.transcripts] == [1, 2, 3]


async def test_another_tenant_can_neither_read_nor_change_versions(harness: Harness) -> None:
    session_id = harness.sessions["completed"]
    async with versions_of(harness.stack) as writer:
        await writer.version(parse_session_id(session_id), 2, BETTER, is_current=False)
    other = await harness.make_tenant("versions-other", "sessions:read", "sessions:write")
    reader = await harness.make_tenant("acme", "sessions:read")
    path = f"{SESSIONS}/{session_id}"
    for verb, name in (
        ("GET", "transcripts"),
        ("GET", "transcript?version=2"),
        ("GET", "export/txt?version=2"),
        ("GET", "utterances?version=2"),
        ("POST", "transcripts/2/current"),
        ("DELETE", "transcripts/2"),
    ):
        answer = await harness.http.request(verb, f"{path}/{name}", headers=bearer(other))
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, "SESSION_NOT_FOUND"), name
        answer = await harness.http.request(verb, f"{path}/{name}", headers=bearer(reader))
        assert answer.status_code == (200 if verb == "GET" else 403), name
    deleted = await harness.http.delete(f"{path}/transcripts/2", headers=bearer(harness.admin))
    assert deleted.status_code == 200
