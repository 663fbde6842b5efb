"""Connections that are cut between the SDK and Envoy, on both transports."""

import asyncio
from itertools import pairwise

import pytest
from dalston import Acknowledged, AsyncClient, Ended, Event, FinalResult, Resumed
from dalston.options import Transport

from stack.supervisor import Stack
from tests.faults.proxy import Proxy
from tests.integration.sdk.conftest import RATE, Speech, frames_of


@pytest.mark.parametrize("transport", ["grpc", "websocket"])
@pytest.mark.timeout(180)
async def test_cut_connection_affects_neither_transcript_nor_recording(
    stack: Stack, speech: Speech, transport: Transport
) -> None:
    events: list[Event] = []
    async with Proxy(stack.host, stack.port) as proxy, AsyncClient(f"http://{proxy.url}") as client:
        stream = client.transcribe(
            speech.wav, store_audio=True, store_transcript=True, language="en", transport=transport, pace=4.0
        )
        cuts = [4.0, 12.0]
        async for event in stream:
            events.append(event)
            if cuts and isinstance(event, Acknowledged) and event.received >= cuts[0]:
                cuts.pop(0)
                proxy.cut()
        ended = events[-1]
        assert isinstance(ended, Ended)
        assert len(ended.session_ids) == 1 + len([event for event in events if isinstance(event, Resumed)]) >= 3
        assert ended.duration == pytest.approx(speech.seconds)
        finals = [event for event in events if isinstance(event, FinalResult)]
        assert all(one.end <= other.start + 0.5 for one, other in pairwise(finals))
        assert ended.text == " ".join(final.text for final in finals)
        joined = bytearray()
        base = 0
        for session_id in ended.session_ids:
            async with asyncio.timeout(30):
                while not (session := await client.sessions.get(session_id)).audio_uri:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            base += round((session.resume_from_seconds or 0.0) * RATE) * 2
            assert base <= len(joined)
            joined[base:] = frames_of(await client.sessions.audio(session_id).read())
        assert bytes(joined) == speech.pcm
