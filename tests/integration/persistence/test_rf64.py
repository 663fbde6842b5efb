"""Recordings longer than the maximum of a RIFF, on a real S3 server. The limit is lowered for the test.

`tests/unit/persistence/test_wav.py` tests the real limit of 4 GiB, without a store.
"""

import asyncio
import io
from dataclasses import replace
from typing import Any

import grpc
import pytest
import soundfile

from domain.session_id import parse_session_id
from persistence import wav
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.s3.layout import PART_BYTES
from persistence.storing.remote_recovery import RemoteRecovery
from tests.integration.persistence.test_two_servers import BOTH, QUICK, messages_of, until_clean, until_stored

MOST_BYTES = 2 * PART_BYTES


@pytest.fixture(autouse=True)
def short_riff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav, "_MOST_RIFF_BYTES", MOST_BYTES)


def decoded(file: bytes) -> tuple[str, bytes]:
    """The file format and the audio, as libsndfile reads them."""
    with soundfile.SoundFile(io.BytesIO(file)) as sound:
        assert (sound.samplerate, sound.channels, sound.subtype) == (16_000, 1, "PCM_16")
        return sound.format, sound.read(dtype="int16").tobytes()


@pytest.mark.parametrize(("size", "kind"), [(MOST_BYTES - 64_000, "WAV"), (MOST_BYTES + 3_200_000, "RF64")])
async def test_a_long_recording_made_of_parts_is_an_rf64(
    build_harness: Any, client_of: Any, size: int, kind: str
) -> None:
    messages = messages_of(size)
    async with build_harness(flush_seconds=0.3) as harness, harness.channel() as channel:
        harness.fake_transcriber.message_count = 1_000_000
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*messages)
        await client.end()
        assert (await client.rest())[-1].session_end.audio_uri
        assert decoded(await harness.read_audio(session_id)) == (kind, b"".join(messages))
        await harness.no_spool()


@pytest.mark.usefixtures("empty_store")  # a reaper ends what other tests have left, too
async def test_a_long_recording_ended_by_another_server_is_an_rf64(
    build_harness: Any, make_settings: Any, client_of: Any, a_killable_server: Any
) -> None:
    settings = make_settings(**QUICK)
    messages = messages_of(MOST_BYTES + 3_200_000)
    total = sum(map(len, messages))
    async with (
        build_harness(spool_dir=settings.spool_dir.with_name("another"), **QUICK) as harness,
        a_killable_server(settings) as (process, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        reading = asyncio.create_task(client.rest())
        await client.send(*messages)
        await until_stored(harness, session_id, total)
        process.kill()
        await asyncio.gather(reading, return_exceptions=True)
        await harness.ended(session_id)
        await until_clean(harness, session_id)
        file = await harness.read_audio(session_id)
        assert decoded(file) == ("RF64", b"".join(messages))
        # An interruption between writing the object and the row: the header shows that the object is complete.
        worker_id = harness.settings.worker_id
        session = await Ownership(harness.database, worker_id).read_own(parse_session_id(session_id))
        await RemoteRecovery(harness.objects, SessionRows(harness.database, worker_id)).end(
            replace(session, audio_uri=None)
        )
        assert await harness.read_audio(session_id) == file
        assert (await harness.row_of(session_id))["stored_bytes"] == total
