"""Unusual input of live clients: nothing at all, noise, inverted channels, files, language tags."""

import asyncio
import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.e2e.conftest import Client, Sample, chunks
from tests.words import word_error_rate


async def until(socket: Any, kind: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Reads up to the next message of this kind."""
    while True:
        messages.append(json.loads(await socket.recv()))
        if messages[-1]["type"] == kind:
            found: dict[str, Any] = messages[-1]
            return found


@pytest.mark.timeout(120)
async def test_speech_before_a_mute_gets_its_final(client: Client, sample: Sample) -> None:
    """In mid-sentence the client sends nothing but keepalives; later speech is another utterance."""
    before_mute = sample.pcm[: 5 * sample.rate // 2]
    async with client.open(language="en", interim_results="false") as socket:
        messages: list[dict[str, Any]] = []
        await until(socket, "session.begin", messages)
        for frame in chunks(before_mute.tobytes()):
            await socket.send(frame)
        muted = asyncio.create_task(_keep_alive(socket))
        final = await until(socket, "transcript.final", messages)
        muted.cancel()
        assert [message["type"] for message in messages[-3:]] == [
            "vad.speech_start",
            "vad.speech_end",
            "transcript.final",
        ]
        assert final["start"] < final["end"] <= 2.5
        outcome = await client.talk(
            socket, messages, *chunks(sample.pcm[len(before_mute) : 6 * sample.rate].tobytes()), '{"type":"end"}'
        )
    assert outcome.close_code == 1000
    first, second, *_ = outcome.of("transcript.final")
    assert first["end"] <= second["start"] < second["end"] <= 6.0
    assert outcome.one("session.end")["total_duration"] == 6.0


async def _keep_alive(socket: Any) -> None:
    while True:
        await socket.send('{"type":"keepalive"}')
        await asyncio.sleep(0.2)


@pytest.mark.timeout(120)
async def test_a_flush_is_answered_after_the_result_of_its_utterance(client: Client) -> None:
    """With the lowest threshold the VAD takes noise for speech, and the model finds none."""
    noise = np.random.default_rng(5).normal(0, 30, 4 * 16_000).astype("<i2").tobytes()
    outcome = await client.transcribe(*chunks(noise), '{"type":"flush"}', vad_threshold=0.001, interim_results="false")
    kinds = [message["type"] for message in outcome.messages]
    assert kinds[-1] == "session.end"
    (warning,) = outcome.of("warning")
    assert kinds.index("vad.speech_end") < kinds.index("warning") < kinds.index("flushed")
    assert warning["code"] == "speech_suppressed"
    assert 0 <= float(warning["start"]) < float(warning["end"]) <= 4
    assert warning["reason"]
    assert outcome.one("session.end")["transcript"] == ""


@pytest.mark.timeout(120)
async def test_a_recording_with_one_channel_inverted_is_transcribed_as_the_other(
    client: Client, sample: Sample
) -> None:
    mono = sample.pcm[: 6 * sample.rate]
    stereo = np.stack((mono, -mono), axis=1).astype("<i2")
    as_mono, as_stereo = await asyncio.gather(
        client.transcribe(*chunks(mono.tobytes()), language="en"),
        client.transcribe(*chunks(stereo.tobytes()), language="en", channels=2),
    )
    transcripts = [outcome.one("session.end")["transcript"] for outcome in (as_mono, as_stereo)]
    assert transcripts[0]
    assert word_error_rate(*transcripts) <= 0.1


@pytest.mark.timeout(120)
async def test_a_container_sent_as_raw_samples_gets_a_warning(client: Client, sample: Sample) -> None:
    file = io.BytesIO()
    soundfile.write(file, sample.pcm[: 2 * sample.rate], sample.rate, format="WAV")
    outcome = await client.transcribe(*chunks(file.getvalue()))
    (warning,) = (message for message in outcome.of("warning") if message["code"] == "container_audio")
    assert warning["format"] == "wav"
    assert outcome.messages[1] == warning
    assert outcome.close_code == 1000


async def test_a_language_tag_counts_as_its_language(client: Client) -> None:
    outcome = await client.transcribe('{"type":"config","language":"ES-mx"}', language="en-US")
    assert outcome.one("session.begin")["config"]["language"] == "en"
    assert outcome.close_code == 1000
    refused = await client.transcribe(language="xx-US", end=False)
    assert (refused.close_code, refused.of("error")[0]["parameter"]) == (4400, "language")
    refused = await client.transcribe('{"type":"config","language":"xx-US"}')
    assert (refused.close_code, refused.one("error")["parameter"]) == (4400, "language")


@pytest.mark.timeout(120)
async def test_extreme_speech_durations_do_not_suppress_speech(client: Client, sample: Sample) -> None:
    outcome = await client.transcribe(
        *chunks(sample.pcm[: 6 * sample.rate].tobytes()),
        language="en",
        min_speech_duration_ms=1000,
        max_utterance_duration=1.1,
    )
    assert outcome.of("transcript.final")
