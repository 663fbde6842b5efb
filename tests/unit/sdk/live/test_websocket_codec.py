"""The SDK's WebSocket frames are compatible with the bridge."""

import pytest
from dalston import NoCapacity, ServerError
from dalston.live.send_queue import END, FLUSH, KEEP_ALIVE
from dalston.live.websocket_codec import decode_response, encode_config, encode_control
from dalston.v1 import transcription_pb2 as pb

from bridge.protocols.native.frames import decode_frame, encode_error, encode_response
from bridge.protocols.native.parameters import parse_query
from edge.closing import close_reason_for

CONFIG = pb.TranscribeConfig(
    language="de",
    model="accurate",
    encoding="mulaw",
    sample_rate=8000,
    channels=2,
    enable_vad=False,
    interim_results=True,
    word_timestamps=True,
    vocabulary=["Dalston & Hackney", 'a "quoted" ä'],
    vad_threshold=0.25,
    min_speech_duration_ms=100,
    min_silence_duration_ms=200,
    max_utterance_duration=12.5,
    store_audio=True,
    store_transcript=True,
    enhance_on_end=True,
    resume_session_id="sess_1",
    resume_from_seconds=12345.0000625,
    acks=True,
)


def test_config_round_trips() -> None:
    assert {field.name for field, _ in CONFIG.ListFields()} == set(pb.TranscribeConfig.DESCRIPTOR.fields_by_name)
    assert parse_query(encode_config(CONFIG)).config == CONFIG
    assert parse_query(encode_config(pb.TranscribeConfig())).config == pb.TranscribeConfig()


@pytest.mark.parametrize(
    "control",
    [FLUSH, END, KEEP_ALIVE, pb.TranscribeControl(set_language=pb.TranscribeControl.SetLanguage(language="es"))],
)
def test_controls_round_trip(control: pb.TranscribeControl) -> None:
    assert decode_frame(encode_control(control)).request.control == control


@pytest.mark.parametrize(
    "response",
    [
        pb.TranscribeResponse(
            session_begin=pb.SessionBegin(
                session_id="sess_1",
                config=pb.SessionConfig(sample_rate=8000, encoding="alaw", channels=2, language="en", model="fast"),
                resumed_from="sess_0",
                resume_from_seconds=1.25,
                limits=pb.SessionLimits(max_session_seconds=60, idle_timeout_seconds=30, max_message_bytes=65536),
            )
        ),
        pb.TranscribeResponse(speech_start=pb.SpeechStart(timestamp=0.5)),
        pb.TranscribeResponse(speech_end=pb.SpeechEnd(timestamp=1.5)),
        pb.TranscribeResponse(partial=pb.Partial(text="He", start=0.5, end=1)),
        pb.TranscribeResponse(
            final=pb.Final(
                text="Hé",
                start=0.5,
                end=1,
                confidence=0.5,
                language="en",
                words=[pb.Word(word="Hé", text="Hé", start=0.5, end=1, confidence=0.5)],
                language_probability=0.75,
            )
        ),
        pb.TranscribeResponse(flushed=pb.Flushed(timestamp=2)),
        pb.TranscribeResponse(audio_ack=pb.AudioAck(received_seconds=3, processed_seconds=2, stored_seconds=1)),
        pb.TranscribeResponse(warning=pb.Warning(code="c", message="m", details={"state": "begin", "reason": "disk"})),
        pb.TranscribeResponse(
            session_terminating=pb.SessionTerminating(reason="shutdown", grace_seconds=30, resume_session_id="sess_1")
        ),
        pb.TranscribeResponse(
            session_end=pb.SessionEnd(
                session_id="sess_1",
                total_duration=3,
                total_speech_duration=1,
                transcript="He",
                segments=[pb.SessionEnd.Segment(start=0.5, end=1, text="He")],
                audio_uri="s3://b/k",
            )
        ),
    ],
    ids=lambda response: response.WhichOneof("response"),
)
def test_server_messages_round_trip(response: pb.TranscribeResponse) -> None:
    text = encode_response(response)
    assert text is not None
    assert decode_response(text) == response


def test_error_message_is_decoded_as_an_error() -> None:
    error = decode_response(encode_error(close_reason_for("NO_CAPACITY", "full")))
    assert isinstance(error, NoCapacity)
    assert (error.reason, error.message) == ("NO_CAPACITY", "full")


def test_unknown_message_type_is_ignored_and_malformed_message_is_rejected() -> None:
    assert decode_response('{"type":"mood","mood":"good"}') is None
    for text in ("", "[]", "{}", '{"type":"audio.ack","received_seconds":"far"}', '{"type":"warning"}'):
        with pytest.raises(ServerError):
            decode_response(text)
