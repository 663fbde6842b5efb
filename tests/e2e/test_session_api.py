"""The record of sessions through the real Envoy, as curl, a player and a browser read it."""

import asyncio
import io
import json
import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
import soundfile

from tests.e2e.conftest import Client, Sample, audio_bytes, chunks

SESSIONS = "/v1/realtime/sessions"
STORED = {"store_audio": "true", "store_transcript": "true", "language": "en"}
GUIDE = Path(__file__).parents[2] / "docs" / "rest.md"


async def stored_session(client: Client, pcm: np.ndarray[Any, Any], **parameters: str) -> str:
    outcome = await client.transcribe(*chunks(pcm.tobytes()), **STORED | parameters)
    return str(outcome.one("session.end")["session_id"])


@dataclass
class StoredSession:
    """A stored session and its audio."""

    id: str
    pcm: np.ndarray[Any, Any]

    @property
    def path(self) -> str:
        return f"{SESSIONS}/{self.id}"


@pytest.fixture(scope="module")
async def stored(client: Client, sample: Sample) -> StoredSession:
    pcm = sample.pcm[: 16_000 * 12]
    return StoredSession(await stored_session(client, pcm), pcm)


@pytest.fixture(scope="module")
async def database(client: Client) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(client.stack.database_url)
    yield connection
    await connection.close()


def key(session_id: str) -> uuid.UUID:
    return uuid.UUID(hex=session_id.removeprefix("sess_"))


async def link(database: asyncpg.Connection, session_id: str, previous: str, seconds: float) -> None:
    """Links one session to another, as if it had resumed it."""
    await database.execute(
        "UPDATE realtime_sessions SET previous_session_id = $2, resume_from_seconds = $3 WHERE id = $1",
        key(session_id),
        key(previous),
        seconds,
    )


@pytest.mark.parametrize(
    ("header", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-100", -100, None),
        ("bytes=1000-300000", 1000, 300_001),
        ("bytes=384000-99999999", 384_000, None),
    ],
)
async def test_a_range_of_the_audio_is_a_206_with_exactly_it(
    stored: StoredSession, client: Client, header: str, begin: int, end: int | None
) -> None:
    whole = (await client.http.get(f"{stored.path}/audio")).content
    answer = await client.http.get(f"{stored.path}/audio", headers={"range": header})
    assert answer.status_code == 206
    assert answer.content == whole[begin:end]
    first = begin % len(whole)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "audio/wav"


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "bytes=oops", "bytes=9-3", "seconds=0-1", ""])
async def test_a_header_without_a_single_range_returns_the_whole_file(
    stored: StoredSession, client: Client, header: str
) -> None:
    answer = await client.http.get(f"{stored.path}/audio", headers={"range": header})
    assert answer.status_code == 200
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert audio_bytes(answer.content) == stored.pcm.tobytes()


async def test_if_range_returns_a_part_of_the_same_file_only(stored: StoredSession, client: Client) -> None:
    whole = await client.http.get(f"{stored.path}/audio")
    part = {"range": "bytes=100-199"}
    same = await client.http.get(f"{stored.path}/audio", headers={**part, "if-range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, whole.content[100:200])
    assert same.headers["etag"] == whole.headers["etag"]
    for other in ('"0"', "Mon, 30 Nov 2026 12:00:00 GMT"):
        answer = await client.http.get(f"{stored.path}/audio", headers={**part, "if-range": other})
        assert (answer.status_code, answer.content) == (200, whole.content)


@pytest.mark.parametrize("path", ["audio", "transcript", "export/txt", "export/srt", "export/vtt", "export/json"])
async def test_if_none_match_returns_a_304(stored: StoredSession, client: Client, path: str) -> None:
    first = await client.http.get(f"{stored.path}/{path}")
    assert first.status_code == 200
    again = await client.http.get(f"{stored.path}/{path}", headers={"if-none-match": f'"0", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await client.http.get(f"{stored.path}/{path}", headers={"if-none-match": '"0"'})
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0"])
async def test_a_range_outside_the_audio_is_a_416_in_json(stored: StoredSession, client: Client, header: str) -> None:
    answer = await client.http.get(f"{stored.path}/audio", headers={"range": header})
    assert answer.status_code == 416
    assert re.fullmatch(r"bytes \*/\d+", answer.headers["content-range"])
    assert answer.json()["details"][0]["reason"] == "INVALID_RANGE"


@pytest.mark.parametrize("path", ["audio", "transcript", "export/srt", "export/json"])
async def test_head_has_the_headers_of_get(stored: StoredSession, client: Client, path: str) -> None:
    body = await client.http.get(f"{stored.path}/{path}")
    head = await client.http.head(f"{stored.path}/{path}")
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "content-type", "content-disposition"):
        assert head.headers.get(name) == body.headers.get(name)
    assert body.headers["content-length"] == str(len(body.content))


async def test_every_export_has_its_type_and_name_and_all_the_words(stored: StoredSession, client: Client) -> None:
    transcript = (await client.http.get(f"{stored.path}/transcript")).json()
    types = {
        "txt": "text/plain; charset=utf-8",
        "srt": "application/x-subrip",
        "vtt": "text/vtt",
        "json": "application/json",
    }
    for name, content_type in types.items():
        answer = await client.http.get(f"{stored.path}/export/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == content_type
        assert answer.headers["content-disposition"] == f'attachment; filename="{stored.id}.{name}"'
        if name == "json":
            assert answer.json() == transcript
            continue
        text = re.sub(r"(?m)^(WEBVTT|\d+|\d\d:.* --> .*)$", "", answer.content.decode())
        assert " ".join(text.split()) == transcript["text"]


async def test_caption_options_apply(stored: StoredSession, client: Client) -> None:
    options = {"max_line_length": 20, "max_lines": 1}
    captions = (await client.http.get(f"{stored.path}/export/vtt", params=options)).text
    lines = [line for line in captions.splitlines()[2:] if line and "-->" not in line]
    assert lines
    assert max(map(len, lines)) <= 20
    assert captions.count("-->") == len(lines)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("export/docx", "format"),
        ("export/srt?max_lines=0", "max_lines"),
        ("export/srt?max_line_length=9", "max_line_length"),
        ("utterances?limit=0", "limit"),
        ("utterances?limit=1001", "limit"),
        ("utterances?offset=-1", "offset"),
    ],
)
async def test_the_error_names_a_parameter_out_of_range(
    stored: StoredSession, client: Client, path: str, parameter: str
) -> None:
    answer = await client.http.get(f"{stored.path}/{path}")
    assert answer.status_code == 400
    assert answer.json()["details"][0]["metadata"]["parameter"] == parameter
    if parameter == "format":
        assert "txt, srt, vtt, json" in answer.json()["message"]


@pytest.mark.parametrize("path", ["", "/audio", "/transcript", "/export/srt", "/utterances", "/audio?linked=true"])
async def test_unknown_and_invalid_ids_are_json_errors_on_every_route(client: Client, path: str) -> None:
    unknown = await client.http.get(f"{SESSIONS}/sess_{'0' * 32}{path}")
    assert (unknown.status_code, unknown.json()["details"][0]["reason"]) == (404, "SESSION_NOT_FOUND")
    bad = await client.http.get(f"{SESSIONS}/nonsense{path}")
    assert (bad.status_code, bad.json()["details"][0]["reason"]) == (400, "INVALID_PARAMETERS")


async def test_an_object_that_was_not_stored_is_a_404(client: Client) -> None:
    outcome = await client.transcribe()
    path = f"{SESSIONS}/{outcome.one('session.end')['session_id']}"
    for name, reason in (("audio", "AUDIO"), ("transcript", "TRANSCRIPT"), ("export/vtt", "TRANSCRIPT"),
                         ("utterances", "TRANSCRIPT")):  # fmt: skip
        answer = await client.http.get(f"{path}/{name}")
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, f"{reason}_NOT_STORED")


async def test_utterances_of_a_running_session_are_listed(client: Client, sample: Sample) -> None:
    async with client.open(**STORED) as socket:
        session_id = json.loads(await socket.recv())["session_id"]
        for chunk in chunks(sample.pcm[: 16_000 * 9].tobytes()):
            await socket.send(chunk)
        await socket.send('{"type":"flush"}')
        finals = []
        while (message := json.loads(await socket.recv()))["type"] != "flushed":
            finals += [message] if message["type"] == "transcript.final" else []
        page: dict[str, Any] = {}
        for _ in range(50):
            page = (await client.http.get(f"{SESSIONS}/{session_id}/utterances")).json()
            if len(page["utterances"]) == len(finals):
                break
            await asyncio.sleep(0.1)
        assert [(u["index"], u["text"], u["start"], u["end"]) for u in page["utterances"]] == [
            (at, final["text"], final["start"], final["end"]) for at, final in enumerate(finals)
        ]
        assert page["utterances"][0]["language"] == "en"
        assert page["has_more"] is True
        refused = await client.http.get(f"{SESSIONS}/{session_id}/export/txt")
        assert (refused.status_code, refused.json()["details"][0]["reason"]) == (409, "SESSION_ACTIVE")
        await client.talk(socket, [], '{"type":"end"}')
    page = (await client.http.get(f"{SESSIONS}/{session_id}/utterances?offset=1&limit=1")).json()
    assert [u["index"] for u in page["utterances"]] in ([1], [])
    last = (await client.http.get(f"{SESSIONS}/{session_id}/utterances?offset=1000")).json()
    assert last == {"utterances": [], "has_more": False}


@pytest.fixture(scope="module")
async def chain(client: Client, sample: Sample, database: asyncpg.Connection) -> list[StoredSession]:
    """A recording that was lost at 12 s and resumed from 9 s on, and once more."""
    pieces = [sample.pcm[: 16_000 * 12], sample.pcm[16_000 * 9 : 16_000 * 20], sample.pcm[16_000 * 18 : 16_000 * 24]]
    found = [StoredSession(await stored_session(client, piece), piece) for piece in pieces]
    await link(database, found[1].id, found[0].id, 9.0)
    await link(database, found[2].id, found[1].id, 9.0)
    return found


async def test_a_resumed_recording_is_joined_to_the_sample(
    chain: list[StoredSession], client: Client, sample: Sample
) -> None:
    path = f"{chain[2].path}/audio?linked=true"
    answer = await client.http.get(path)
    assert answer.headers["content-length"] == str(len(answer.content))
    assert audio_bytes(answer.content) == sample.pcm[: 16_000 * 24].tobytes()
    assert soundfile.info(io.BytesIO(answer.content)).frames == 16_000 * 24
    part = await client.http.get(path, headers={"range": "bytes=280000-600000"})
    assert (part.status_code, part.content) == (206, answer.content[280_000:600_001])
    record = (await client.http.get(chain[2].path)).json()
    assert (record["previous_session_id"], record["resume_from_seconds"]) == (chain[1].id, 9.0)
    assert (await client.http.get(chain[1].path)).json()["next_session_id"] == chain[2].id


async def test_a_joined_transcript_has_the_joined_time_axis(chain: list[StoredSession], client: Client) -> None:
    joined = (await client.http.get(f"{chain[2].path}/transcript?linked=true")).json()
    assert joined["session_id"] == chain[2].id
    assert joined["duration"] == 24.0
    assert joined["language"] == "en"
    assert joined["text"] == " ".join(utterance["text"] for utterance in joined["utterances"])
    expected = []
    for stored, offset, cut in zip(chain, (0.0, 9.0, 18.0), (9.0, 9.0, 99.0), strict=True):
        own = (await client.http.get(f"{stored.path}/transcript")).json()["utterances"]
        expected += [(pytest.approx(u["start"] + offset), u["text"]) for u in own if (u["start"] + u["end"]) / 2 < cut]
    assert [(u["start"], u["text"]) for u in joined["utterances"]] == expected
    text = (await client.http.get(f"{chain[2].path}/export/txt?linked=true")).text
    assert " ".join(text.split()) == joined["text"]
    assert (await client.http.get(f"{chain[2].path}/export/json?linked=true")).json() == joined


async def test_a_member_without_audio_is_named(
    client: Client, sample: Sample, database: asyncpg.Connection, stored: StoredSession
) -> None:
    silent = (await client.transcribe()).one("session.end")["session_id"]
    last = await stored_session(client, sample.pcm[:16_000])
    await link(database, last, silent, 0.0)
    answer = await client.http.get(f"{SESSIONS}/{last}/audio?linked=true")
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, "AUDIO_NOT_STORED")
    assert silent in answer.json()["message"]
    assert (await client.http.get(f"{SESSIONS}/{last}/audio")).status_code == 200


async def test_missing_audio_is_an_error_and_never_a_short_file(
    client: Client, sample: Sample, database: asyncpg.Connection
) -> None:
    pcm = sample.pcm[: 16_000 * 30]
    first, second = await stored_session(client, pcm), await stored_session(client, sample.pcm[:16_000])
    await link(database, second, first, 30.0)
    await remove_audio(client, second)
    gone = await client.http.get(f"{SESSIONS}/{second}/audio")
    assert (gone.status_code, gone.json()["details"][0]["reason"]) == (503, "UNAVAILABLE")
    url = f"{client.stack.base_url}{SESSIONS}/{second}/audio?linked=true"
    for protocol, code in (("--http1.1", 18), ("--http2-prior-knowledge", 92)):
        broken = await asyncio.to_thread(
            subprocess.run,
            ["curl", "-sS", protocol, "--max-time", "20", url], capture_output=True, check=False,
        )  # fmt: skip
        assert broken.returncode == code, broken.stderr
        assert len(broken.stdout) >= len(pcm.tobytes())


@asynccontextmanager
async def objects_of(client: Client) -> AsyncIterator[Any]:
    """A client of the stack's bucket."""
    import aioboto3

    s3 = client.stack.s3
    assert s3 is not None
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        region_name=s3.region,
    ) as objects:
        yield objects


async def remove_audio(client: Client, session_id: str) -> None:
    assert client.stack.s3 is not None
    async with objects_of(client) as objects:
        await objects.delete_object(Bucket=client.stack.s3.bucket, Key=f"sessions/{session_id}/audio.wav")


async def test_a_transcript_of_an_earlier_version_has_both_names_of_a_word(client: Client, sample: Sample) -> None:
    session_id = await stored_session(client, sample.pcm[: 16_000 * 6], word_timestamps="true")
    path = f"{SESSIONS}/{session_id}"
    now = await client.http.get(f"{path}/transcript")
    old = now.json()
    for word in (words := [word for utterance in old["utterances"] for word in utterance["words"]]):
        del word["text"]
    assert words
    assert client.stack.s3 is not None
    place = {"Bucket": client.stack.s3.bucket, "Key": f"sessions/{session_id}/transcript.json"}
    async with objects_of(client) as objects:
        await objects.put_object(**place, Body=json.dumps(old, ensure_ascii=False).encode())
    for file in ("transcript", "export/json"):
        assert (await client.http.get(f"{path}/{file}")).content == now.content


async def test_the_commands_of_the_guide_work(client: Client, sample: Sample, tmp_path: Path) -> None:
    await client.transcribe()  # a second page of the list
    session_id = await stored_session(client, sample.pcm[: 16_000 * 9])
    page = (await client.http.get(SESSIONS, params={"limit": 1})).json()
    values = {
        "URL": f"{client.stack.base_url}{SESSIONS}",
        "ID": session_id,
        "CURSOR": page["pagination"]["next_cursor"],
    }
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE))
    for name, value in values.items():
        script, count = re.subn(rf"(?m)^{name}=\S+", f"{name}={value}", script)
        assert count == 1
    # A stream whose reader has had enough is noticed at its next message, which may be a heartbeat.
    ended = 'case "$*" in *:watch*) set -- --max-time 5 "$@" ;; esac'
    strict = f'set -eu\ncurl() {{ {ended}; command curl --fail --silent --show-error "$@"; }}\n'
    ran = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", strict + script], cwd=tmp_path, capture_output=True, text=True, timeout=50,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    sizes = written(tmp_path)
    assert {"session.wav", "whole.wav", f"{session_id}.srt"} <= set(sizes)
    assert (sizes["head.bin"], sizes["tail.bin"]) == (1024, 1024)
    assert (await client.http.get(f"{SESSIONS}/{session_id}")).status_code == 404


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}
