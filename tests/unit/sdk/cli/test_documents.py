from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from dalston import events
from dalston.cli import documents
from dalston.live.audio_format import AudioFormat
from dalston.live.resumable_session import ResumableSession
from dalston.live.send_queue import SendQueue
from dalston.options import Behaviour
from dalston.records import Key, Scope
from dalston.v1 import transcription_pb2 as pb

from bridge.protocols.native.frames import encode_response


def test_times_are_rfc_3339_and_unset_fields_are_omitted() -> None:
    made = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
    key = Key("key_1", "ci", "dk_ab", frozenset({Scope.SESSIONS_READ, Scope.REALTIME}), made)
    assert documents.document(key) == {
        "id": "key_1",
        "name": "ci",
        "prefix": "dk_ab",
        "scopes": ["realtime", "sessions:read"],
        "created_at": "2026-05-01T09:30:00Z",
    }


def test_events_have_the_names_of_the_websocket_api() -> None:
    final = events.FinalResult("Hello.", 0.5, 1.0, 0.9, "en", (events.Word("Hello.", 0.5, 1.0, 0.8),))
    assert documents.event(final) == {
        "type": "transcript.final",
        "text": "Hello.",
        "start": 0.5,
        "end": 1.0,
        "confidence": 0.9,
        "language": "en",
        "words": [{"word": "Hello.", "text": "Hello.", "start": 0.5, "end": 1.0, "confidence": 0.8}],
    }
    assert documents.event(events.Acknowledged(3.0, 2.0, 1.0)) == {
        "type": "audio.ack",
        "received_seconds": 3.0,
        "processed_seconds": 2.0,
        "stored_seconds": 1.0,
    }


WORDS = (pb.Word(word="Hello.", start=0.5, end=1.0, confidence=0.5),)
MESSAGES = [
    pb.TranscribeResponse(
        session_begin=pb.SessionBegin(
            session_id="s1",
            config=pb.SessionConfig(sample_rate=8000, encoding="alaw", channels=2, language="en", model="fast"),
            limits=pb.SessionLimits(max_session_seconds=60, idle_timeout_seconds=30, max_message_bytes=65536),
            resumed_from="s0",
            resume_from_seconds=1.5,
        )
    ),
    pb.TranscribeResponse(speech_start=pb.SpeechStart(timestamp=0.5)),
    pb.TranscribeResponse(speech_end=pb.SpeechEnd(timestamp=1.0)),
    pb.TranscribeResponse(partial=pb.Partial(text="Hel", start=1.0, end=1.5)),
    pb.TranscribeResponse(
        final=pb.Final(text="Hello.", start=1.0, end=2.5, confidence=0.5, language="en", language_probability=0.75)
    ),
    pb.TranscribeResponse(
        final=pb.Final(text="Hello.", start=3.0, end=4.0, confidence=0.5, language="en", words=WORDS)
    ),
    pb.TranscribeResponse(flushed=pb.Flushed(timestamp=4.0)),
    pb.TranscribeResponse(audio_ack=pb.AudioAck(received_seconds=3.0, processed_seconds=2.0, stored_seconds=1.0)),
    pb.TranscribeResponse(warning=pb.Warning(code="processing_lag", message="late", details={"state": "begin"})),
    pb.TranscribeResponse(
        session_end=pb.SessionEnd(
            session_id="s1",
            total_duration=5.0,
            total_speech_duration=2.5,
            transcript="Hello. Hello.",
            segments=[
                pb.SessionEnd.Segment(start=1.0, end=2.5, text="Hello."),
                pb.SessionEnd.Segment(start=3.0, end=4.0, text="Hello."),
            ],
            audio_uri="s3://here",
        )
    ),
]


async def test_every_event_equals_the_websocket_message() -> None:
    """Compares the bridge's frames for the same messages with the command's output."""
    emitted: list[events.Event] = []

    class Connection:
        def __init__(self) -> None:
            self.messages = iter(MESSAGES)

        async def send_audio(self, audio: bytes) -> bool:
            return True

        async def send_control(self, control: pb.TranscribeControl) -> bool:
            return True

        async def receive(self) -> pb.TranscribeResponse | None:
            await asyncio.sleep(0)
            return next(self.messages, None)

        async def close(self) -> None:
            pass

    class Transport:
        async def open(self, config: pb.TranscribeConfig) -> Connection:
            return Connection()

    async def emit(event: events.Event) -> None:
        emitted.append(event)

    send_queue = SendQueue(AudioFormat("alaw", 8000, 2), "en")
    send_queue.finish()
    config = pb.TranscribeConfig()
    await ResumableSession(Transport(), config, Behaviour(), send_queue, emit).run()
    printed = [json.loads(documents.dumps(documents.event(event))) for event in emitted]
    assert printed[-1].pop("session_ids") == ["s1"]
    assert printed == [json.loads(encode_response(message)) for message in MESSAGES]


def test_every_event_has_a_name() -> None:
    kinds = events.Event.__args__  # type: ignore[attr-defined]
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in documents._TYPES}


def test_json_escapes_control_characters() -> None:
    written = documents.dumps({"text": "\x1b[31m\x9b\u202e"})
    assert written.isascii()
    assert json.loads(written) == {"text": "\x1b[31m\x9b\u202e"}
