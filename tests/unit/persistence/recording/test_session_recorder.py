"""The recording of a session, without a spool."""

from datetime import UTC, datetime
from typing import Any
from unittest.mock import AsyncMock, MagicMock
from uuid import uuid4

import pytest
from dalston.v1 import transcription_pb2 as pb

from persistence.recording.call import RecordedCall
from persistence.recording.session_recorder import SessionRecorder
from persistence.session_values import SessionStart


@pytest.fixture
async def recorder() -> SessionRecorder:
    start = SessionStart(
        id=uuid4(),
        tenant_id=uuid4(),
        worker_id="here",
        started_at=datetime.now(UTC),
        language="en",
        model="fast",
        encoding="pcm_s16le",
        sample_rate=16_000,
        channels=1,
        store_audio=False,
        store_transcript=True,
        enhance_on_end=False,
        client_ip=None,
        previous_session_id=None,
        resume_from_seconds=None,
    )
    recorder = SessionRecorder(start, None)
    await recorder.append_audio(bytes(3 * 32_000))
    return recorder


def suppressed(start: str, end: str) -> pb.TranscribeResponse:
    details = {"start": start, "end": end, "reason": "no_speech"}
    return pb.TranscribeResponse(warning=pb.Warning(code="speech_suppressed", message="m", details=details))


@pytest.fixture
def call(recorder: SessionRecorder) -> RecordedCall:
    context: Any = MagicMock()
    context.write = AsyncMock()
    context.invocation_metadata.return_value = ()
    context.peer.return_value = "ipv4:127.0.0.1:1"
    call = RecordedCall(
        AsyncMock(), context, MagicMock(), MagicMock(), store_wait_seconds=1.0, vanished_grace_seconds=1.0
    )
    call._recording.recorder = recorder
    return call


async def test_speech_suppressed_at_the_end_of_audio_follows_the_resume_point(
    call: RecordedCall, recorder: SessionRecorder
) -> None:
    await call._writer.write(suppressed("2.25", "3"))
    recorder.note_processed(3.0)
    assert recorder.progress().processed_seconds == 2.25
    assert recorder.progress().utterances == 0


async def test_speech_suppressed_before_silence_precedes_the_resume_point(
    call: RecordedCall, recorder: SessionRecorder
) -> None:
    await call._writer.write(suppressed("1.25", "2"))
    recorder.note_processed(3.0)
    assert recorder.progress().processed_seconds == 3.0


async def test_the_warning_of_suppressed_speech_is_sent_to_the_client(call: RecordedCall) -> None:
    await call._writer.write(suppressed("1.25", "2"))
    call._context.write.assert_awaited_once_with(suppressed("1.25", "2"))  # type: ignore[attr-defined]
