"""Partials of real speech in real time, through the whole stack."""

import asyncio
import json

import pytest

from tests.e2e.conftest import Client, Outcome, Sample, chunks
from tests.words import word_error_rate

SECONDS = 9


async def spoken(client: Client, sample: Sample, **parameters: str) -> Outcome:
    """The outcome of the first sentence of the sample, sent in real time."""
    async with client.open(language="en", **parameters) as socket:
        begin = json.loads(await socket.recv())

        async def send() -> None:
            for chunk in chunks(sample.pcm[: 16_000 * SECONDS].tobytes()):
                await socket.send(chunk)
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(send())
        messages = [begin]
        while len(messages) < 2 or messages[-1]["type"] != "transcript.final":
            messages.append(json.loads(await socket.recv()))
        await sending
        return await client.talk(socket, messages, '{"type":"end"}')


@pytest.fixture(scope="module")
async def outcomes(client: Client, sample: Sample) -> list[Outcome]:
    """Outcomes with and without partials, streamed at the same time."""
    return await asyncio.gather(
        spoken(client, sample, store_transcript="true"), spoken(client, sample, interim_results="false")
    )


async def test_partials_grow_into_the_final_and_are_not_stored(client: Client, outcomes: list[Outcome]) -> None:
    outcome = outcomes[0]
    assert outcome.close_code == 1000
    kinds = [message["type"] for message in outcome.messages]
    until_final = kinds[: kinds.index("transcript.final") + 1]  # the second sentence begins after it
    positions = [at for at, kind in enumerate(until_final) if kind == "transcript.partial"]
    assert until_final.index("vad.speech_start") < positions[0]
    assert positions[-1] < until_final.index("vad.speech_end")
    final = outcome.of("transcript.final")[0]
    partials = outcome.of("transcript.partial")[: len(positions)]
    lengths = [len(partial["text"].split()) for partial in partials]
    assert lengths == sorted(lengths)
    assert len(partials) >= 2
    for partial in partials:
        assert partial["start"] == final["start"] < partial["end"] <= final["end"]
    final_prefix = " ".join(final["text"].split()[: lengths[-1]])
    assert word_error_rate(final_prefix, partials[-1]["text"]) <= 0.3
    session_id = outcome.messages[0]["session_id"]
    stored = (await client.http.get(f"/v1/realtime/sessions/{session_id}/transcript")).json()
    assert [utterance["text"] for utterance in stored["utterances"]] == [
        message["text"] for message in outcome.of("transcript.final")
    ]


def test_interim_results_false_means_no_partials(outcomes: list[Outcome]) -> None:
    outcome = outcomes[1]
    assert outcome.of("transcript.partial") == []
    assert outcome.of("transcript.final")
