"""A client of another Dalston service works unchanged."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import connect

from stack.supervisor import Stack
from tests.e2e.conftest import Sample, chunks


class OtherClient:
    """Uses the names of other Dalston services only.

    It raises if a name is missing, as such clients do.
    """

    def __init__(self, base_url: str, ws_url: str) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=20)
        self._ws_url = ws_url

    async def close(self) -> None:
        await self._http.aclose()

    async def is_healthy(self) -> bool:
        answer = await self._http.get("/health")
        return answer.status_code == 200 and answer.json()["status"] == "healthy"

    async def status(self) -> dict[str, Any]:
        answer = await self._http.get("/v1/realtime/status")
        answer.raise_for_status()
        return dict(answer.json())

    async def transcribe(self, audio: list[bytes]) -> tuple[str, list[str], list[dict[str, Any]]]:
        """The session's id, the words in order, and the warnings."""
        query = urlencode(
            {
                "model": "",
                "language": "en",
                "encoding": "pcm_s16le",
                "sample_rate": 16000,
                "word_timestamps": "true",
                "store_audio": "true",
                "store_transcript": "true",
                "retention": "30",
            }
        )
        words: list[str] = []
        warnings: list[dict[str, Any]] = []
        # The proxy settings of a library are not for loopback.
        async with connect(f"{self._ws_url}/v1/audio/transcriptions/stream?{query}", proxy=None) as socket:
            session_id = json.loads(await socket.recv())["session_id"]
            await socket.send(json.dumps({"type": "clear"}))
            await socket.send(json.dumps({"type": "config", "vad_threshold": 0.4, "min_silence_duration_ms": 600}))
            for chunk in audio:
                await socket.send(chunk)
            await socket.send(json.dumps({"type": "end"}))
            async for text in socket:
                message = json.loads(text)
                match message["type"]:
                    case "transcript.final":
                        words += [word["text"] for word in message["words"]]
                    case "warning":
                        warnings.append(message)
                    case "error":
                        raise RuntimeError(message["code"])
        return session_id, words, warnings

    async def sessions(self) -> AsyncIterator[dict[str, Any]]:
        """All sessions, page by page."""
        cursor = None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            answer = await self._http.get("/v1/realtime/sessions", params=query)
            answer.raise_for_status()
            page = answer.json()
            for session in page["sessions"]:
                yield session
            if not page["has_more"]:
                return
            cursor = page["cursor"]

    async def stored_words(self, session_id: str) -> list[str]:
        answer = await self._http.get(f"/v1/realtime/sessions/{session_id}/transcript")
        answer.raise_for_status()
        return [word["text"] for utterance in answer.json()["utterances"] for word in utterance["words"]]


@pytest.fixture
async def other(stack: Stack) -> AsyncIterator[OtherClient]:
    client = OtherClient(stack.base_url, stack.ws_url)
    yield client
    await client.close()


async def test_a_client_of_another_dalston_service_runs_unmodified(other: OtherClient, sample: Sample) -> None:
    assert await other.is_healthy()
    assert (await other.status())["status"] == "ready"
    assert isinstance((await other.status())["active_sessions"], int)
    made = []
    for seconds in (4, 1, 1):
        audio = chunks(sample.pcm[: seconds * sample.rate].tobytes())
        session_id, words, warnings = await other.transcribe(audio)
        made.append(session_id)
        assert {warning["name"] for warning in warnings} == {
            "clear",
            "retention",
            "vad_threshold",
            "min_silence_duration_ms",
        }
        if seconds == 4:
            assert words
            first_words = words

    found = {session["id"]: session async for session in other.sessions()}
    assert set(made) <= set(found)
    assert found[made[0]]["segment_count"] == found[made[0]]["utterance_count"] > 0
    assert await other.stored_words(made[0]) == first_words
