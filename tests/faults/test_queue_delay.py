"""Recording never waits for recognition, and memory does not grow for that."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.gated_server import GATE
from tests.faults.pattern import BYTES_PER_SECOND
from tests.faults.scenario import Expected, Scenario
from tests.faults.servers import ServerProcess, a_server

PROGRAM = "tests.faults.gated_server"
MINUTES = 20
_UTTERANCE_SECONDS = 1.6
"""Speech and the silence after it, as `fault_server` detects them."""
_SLACK_BYTES = 24 * 1024 * 1024
"""30 s of the session's audio (1 MiB), the parts that are on their way to S3, and what Python does not give back."""


def resident_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_audio_is_recorded_while_recognition_hangs_and_transcribed_afterwards(scenario: Scenario) -> None:
    spool, gate = scenario.new_spool(), scenario.folder / "gate"
    environment = scenario.environment(spool) | {GATE: str(gate)}
    async with a_server(environment, scenario.folder / "server.log", program=PROGRAM) as server:
        client = PatternClient(server.channel(), tag=9)
        await client.begin()
        await client.send(60 * BYTES_PER_SECOND)
        await client.until_received(client.sent)
        before = resident_bytes(server)
        await client.send((MINUTES - 1) * 60 * BYTES_PER_SECOND)
        await client.until_received(client.sent)
        grown = resident_bytes(server) - before
        FIGURES.note(f"memory for {MINUTES} min of audio that nobody has recognised: {grown / 2**20:.1f} MiB")
        assert grown < _SLACK_BYTES
        assert client.finals == []
        assert [(each.code, each.details["state"]) for each in client.warnings] == [("processing_lag", "begin")]
        assert client.processed < _UTTERANCE_SECONDS * BYTES_PER_SECOND
        gate.touch()
        await client.finish(120)
        assert client.reason == "OK"
        assert [each.details["state"] for each in client.warnings] == ["begin", "end"]
        expected = Expected.of(client)
        await client.close()
        await scenario.settled()
        await scenario.compare([expected], statuses=("completed",))
        await scenario.until_nothing_is_left(spool)
    starts = [int(re.fullmatch(r"tag 9 bytes (\d+) to \d+", text)[1]) for text in client.finals]  # type: ignore[index]
    # The first begins with the audio, the others a little before their speech.
    steps = {later - earlier for earlier, later in itertools.pairwise(starts[1:])}
    assert steps == {round(_UTTERANCE_SECONDS * BYTES_PER_SECOND)}, "an utterance was not heard"
    assert len(starts) == round(MINUTES * 60 / _UTTERANCE_SECONDS)
