"""P1 and P2 once more with nothing scripted: the real server, its real models, and speech."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import soundfile
from dalston.v1 import transcription_pb2 as pb
from dalston.v1 import transcription_pb2_grpc

from stack.settings import ROOT
from tests.faults.figures import FIGURES
from tests.faults.scenario import Scenario, read_wav
from tests.faults.servers import REAL, a_server

_CHUNK_BYTES = 6400


class Speaker:
    """A stream of the sample recording, faster than real time."""

    def __init__(self, channel: grpc.aio.Channel, speech: bytes) -> None:
        self.call: Any = transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe()
        self.speech = speech
        self.session_id = ""
        self.finals: list[str] = []
        self.received = 0

    async def begin(self) -> None:
        config = pb.TranscribeConfig(store_audio=True, store_transcript=True, language="en", acks=True)
        await self.call.write(pb.TranscribeRequest(config=config))
        self.session_id = (await self.call.read()).session_begin.session_id

    async def talk(self) -> None:
        """Sends the recording in a loop, forever."""
        while True:
            for start in range(0, len(self.speech), _CHUNK_BYTES):
                await self.call.write(pb.TranscribeRequest(audio=self.speech[start : start + _CHUNK_BYTES]))
                await asyncio.sleep(0.05)

    async def listen(self) -> None:
        while True:
            response = await self.call.read()
            if response.WhichOneof("response") == "final":
                self.finals.append(response.final.text)
            elif response.WhichOneof("response") == "audio_ack":
                self.received = round(response.audio_ack.received_seconds * 32_000)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_killed_in_the_middle_of_speech(scenario: Scenario, weights_cache: Path) -> None:
    spool = scenario.new_spool()
    speech = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16")[0].tobytes()
    environment = scenario.environment(spool, cache_dir=weights_cache)
    async with (
        a_server(environment, scenario.folder / "server.log", program=REAL) as server,
        server.channel() as channel,
    ):
        speakers = [Speaker(channel, speech) for _ in range(2)]
        for speaker in speakers:
            await speaker.begin()
        tasks = [asyncio.create_task(work()) for speaker in speakers for work in (speaker.talk, speaker.listen)]
        async with asyncio.timeout(120):
            while not all(len(speaker.finals) > 1 for speaker in speakers):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await server.kill()
        FIGURES.add("kills survived")
        await asyncio.gather(*tasks, return_exceptions=True)
    async with a_server(environment, scenario.folder / "server.log", program=REAL):
        await scenario.settled()
        for speaker in speakers:
            wav = await scenario.object(f"sessions/{speaker.session_id}/audio.wav")
            transcript = await scenario.object(f"sessions/{speaker.session_id}/transcript.json")
            assert wav is not None
            assert transcript is not None
            data = read_wav(wav)
            whole = speech * (len(data) // len(speech) + 1)
            assert data == whole[: len(data)]
            assert len(data) >= speaker.received > 0
            texts = [utterance["text"] for utterance in json.loads(transcript)["utterances"]]
            assert texts[: len(speaker.finals)] == speaker.finals
            assert (await scenario.row(speaker.session_id))["status"] == "interrupted"
            FIGURES.add("bytes compared", len(data))
            FIGURES.add("finals of real speech compared", len(speaker.finals))
        await scenario.until_nothing_is_left(spool)
