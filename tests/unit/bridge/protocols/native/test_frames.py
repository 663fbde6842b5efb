import json
import math
from contextlib import suppress

import pytest
from dalston.v1 import transcription_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocols.interface import MAX_FRAME_BYTES
from bridge.protocols.native.frames import (
    ClientFrame,
    decode_frame,
    encode_error,
    encode_response,
    unsupported_warning,
)
from edge.closing import CloseReason
from edge.refusal import Refused

FINITE = st.floats(0, 1e6, allow_nan=False)


def decoded(response: pb.TranscribeResponse) -> dict:
    text = encode_response(response)
    assert text is not None
    return json.loads(text)


def refusal(frame: str | bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        decode_frame(frame)
    return caught.value


@given(st.binary(max_size=300))
def test_a_binary_frame_is_audio(audio: bytes):
    assert decode_frame(audio) == ClientFrame(pb.TranscribeRequest(audio=audio))


def test_audio_up_to_the_limit_passes_and_beyond_it_does_not():
    assert len(decode_frame(bytes(MAX_FRAME_BYTES)).request.audio) == MAX_FRAME_BYTES
    assert refusal(bytes(MAX_FRAME_BYTES + 1)).reason == "MESSAGE_TOO_BIG"


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ('{"type":"flush"}', pb.TranscribeControl(flush={})),
        ('{"type":"keepalive"}', pb.TranscribeControl(keep_alive={})),
        ('{"type":"end"}', pb.TranscribeControl(end={})),
        (' {"language":"es","type":"config"} ', pb.TranscribeControl(set_language={"language": "es"})),
    ],
)
def test_each_instruction_becomes_its_control(text: str, control: pb.TranscribeControl):
    request = decode_frame(text).request
    assert request.control == control


@pytest.mark.parametrize(
    ("text", "control", "unsupported"),
    [
        ('{"type":"clear"}', "keep_alive", ("clear",)),
        ('{"type":"config","vad_threshold":0.3}', "keep_alive", ("vad_threshold",)),
        ('{"type":"config","retention":"30d"}', "keep_alive", ("retention",)),
        (
            '{"type":"config","language":"es","vad_threshold":0.3,"min_silence_duration_ms":800}',
            "set_language",
            ("vad_threshold", "min_silence_duration_ms"),
        ),
    ],
)
def test_unsupported_features_of_other_services_are_named_and_not_refused(
    text: str, control: str, unsupported: tuple[str, ...]
):
    frame = decode_frame(text)
    assert frame.request.control.WhichOneof("control") == control
    assert frame.unsupported == unsupported


@pytest.mark.parametrize("name", ["clear", "retention", "vad_threshold"])
def test_a_warning_names_what_is_not_supported(name: str):
    warning = decoded(unsupported_warning(name))
    assert (warning["type"], warning["code"], warning["name"]) == ("warning", "unsupported", name)
    assert warning["message"].startswith(f"{name} is not supported: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be JSON"),
        ("hello", "must be JSON"),
        ("[" * 60000, "must be JSON"),
        ("9" * 60000, "must be JSON"),
        ('"end"', "JSON object"),
        ("[]", "JSON object"),
        ("{}", "needs a type"),
        ('{"type":null}', "needs a type"),
        ('{"type":["end"]}', "needs a type"),
        ('{"type":"stop"}', 'unknown message type "stop"; known are config, flush, keepalive, end'),
        ('{"type":"end","now":true}', 'end has an unknown key "now"; beside type it takes nothing'),
        ('{"type":"config","language":"es","colour":"red"}', "it takes only language"),
        ('{"type":"config","vad_threshold":0.5,"colour":"red"}', "it takes only language"),
        ('{"type":"clear","now":true}', "it takes nothing"),
        ('{"type":"config","sample_rate":8000}', "it takes only language"),
        ('{"type":"config","language":"es","store_audio":false}', "it takes only language"),
        ('{"type":"config"}', "config needs a language"),
        ('{"type":"config","language":7}', "config needs a language"),
        ('{"type":"config","language":""}', "config needs a language"),
        ('{"type":"config","language":"\\ud800"}', "not valid Unicode"),
        ('{"type":"\\ud800"}', "unknown message type"),
        ('{"type":"flush","type":"end"}', "twice"),
    ],
)
def test_the_refusal_of_a_text_names_its_mistake(text: str, words: str):
    refused = refusal(text)
    assert refused.reason == "INVALID_MESSAGE"
    assert words in refused.message
    refused.message.encode()


@given(st.text(max_size=50) | st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=5).map(json.dumps))
def test_any_text_frame_is_decoded_or_refused(text: str):
    with suppress(Refused):
        decode_frame(text)


def test_session_begin():
    begin = pb.SessionBegin(
        session_id="sess_0",
        config={"sample_rate": 16000, "encoding": "pcm_s16le", "channels": 1, "language": "auto", "model": "fast"},
        limits={"max_session_seconds": 3600, "idle_timeout_seconds": 60, "max_message_bytes": 65536},
    )
    expected = {
        "type": "session.begin",
        "session_id": "sess_0",
        "config": {"sample_rate": 16000, "encoding": "pcm_s16le", "channels": 1, "language": "auto", "model": "fast"},
        "limits": {"max_session_seconds": 3600.0, "idle_timeout_seconds": 60.0, "max_message_bytes": 65536},
    }
    assert decoded(pb.TranscribeResponse(session_begin=begin)) == expected
    begin.resumed_from = "sess_1"
    begin.resume_from_seconds = 1.5
    assert decoded(pb.TranscribeResponse(session_begin=begin)) == expected | {
        "resumed_from": "sess_1",
        "resume_from_seconds": 1.5,
    }


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (pb.TranscribeResponse(speech_start={"timestamp": 1.25}), {"type": "vad.speech_start", "timestamp": 1.25}),
        (pb.TranscribeResponse(speech_end={}), {"type": "vad.speech_end", "timestamp": 0.0}),
        (
            pb.TranscribeResponse(partial={"text": "Hel", "start": 0.1, "end": 0.2}),
            {"type": "transcript.partial", "text": "Hel", "start": 0.1, "end": 0.2},
        ),
        (
            pb.TranscribeResponse(
                final={"text": "Olá 👋", "start": 0.1 + 0.2, "end": 2, "confidence": 0.9, "language": "pt"}
            ),
            {
                "type": "transcript.final",
                "text": "Olá 👋",
                "start": 0.3,
                "end": 2.0,
                "confidence": 0.9,
                "language": "pt",
            },
        ),
        (
            pb.TranscribeResponse(
                final={
                    "words": [{"word": "a", "start": 1, "end": 2, "confidence": 1 / 3}],
                    "language_probability": 2 / 3,
                }
            ),
            {
                "type": "transcript.final",
                "text": "",
                "start": 0.0,
                "end": 0.0,
                "confidence": 0.0,
                "language": "",
                "language_probability": 0.666667,
                "words": [{"word": "a", "text": "a", "start": 1.0, "end": 2.0, "confidence": 0.333333}],
            },
        ),
        (pb.TranscribeResponse(flushed={"timestamp": 3}), {"type": "flushed", "timestamp": 3.0}),
        (
            pb.TranscribeResponse(audio_ack={"received_seconds": 3, "processed_seconds": 2, "stored_seconds": 1}),
            {"type": "audio.ack", "received_seconds": 3.0, "processed_seconds": 2.0, "stored_seconds": 1.0},
        ),
        (
            pb.TranscribeResponse(
                warning={"code": "lag", "message": "m", "details": {"s": "2", "code": "x", "type": "y"}}
            ),
            {"type": "warning", "code": "lag", "message": "m", "s": "2"},
        ),
        (
            pb.TranscribeResponse(
                warning={
                    "code": "speech_suppressed",
                    "message": "m",
                    "details": {"start": "1.5", "end": "2", "reason": "no_speech"},
                }
            ),
            {
                "type": "warning",
                "code": "speech_suppressed",
                "message": "m",
                "start": "1.5",
                "end": "2",
                "reason": "no_speech",
            },
        ),
        (
            pb.TranscribeResponse(
                session_terminating={"reason": "drain", "grace_seconds": 30, "resume_session_id": "sess_0"}
            ),
            {"type": "session.terminating", "reason": "drain", "grace_seconds": 30.0, "resume_session_id": "sess_0"},
        ),
        (
            pb.TranscribeResponse(session_end={"session_id": "sess_0"}),
            {
                "type": "session.end",
                "session_id": "sess_0",
                "total_duration": 0.0,
                "total_speech_duration": 0.0,
                "transcript": "",
                "segments": [],
            },
        ),
        (
            pb.TranscribeResponse(
                session_end={
                    "session_id": "sess_0",
                    "total_duration": 2,
                    "total_speech_duration": 1,
                    "transcript": "a",
                    "segments": [{"start": 1, "end": 2, "text": "a"}],
                    "enhancement_job_id": "job",
                    "audio_uri": "s3://a",
                    "transcript_uri": "s3://t",
                }
            ),
            {
                "type": "session.end",
                "session_id": "sess_0",
                "total_duration": 2.0,
                "total_speech_duration": 1.0,
                "transcript": "a",
                "segments": [{"start": 1.0, "end": 2.0, "text": "a"}],
                "enhancement_job_id": "job",
                "audio_uri": "s3://a",
                "transcript_uri": "s3://t",
            },
        ),
    ],
)
def test_each_message_has_its_json(response: pb.TranscribeResponse, expected: dict):
    assert decoded(response) == expected


def test_every_kind_of_response_has_an_encoder():
    for field in pb.TranscribeResponse.DESCRIPTOR.fields:
        response = pb.TranscribeResponse()
        getattr(response, field.name).SetInParent()
        assert decoded(response)["type"]


def test_an_unknown_response_of_a_newer_server_is_ignored():
    assert encode_response(pb.TranscribeResponse()) is None


@given(FINITE)
def test_a_time_is_a_microsecond_exact_and_has_no_float_noise(seconds: float):
    text = encode_response(pb.TranscribeResponse(flushed={"timestamp": seconds}))
    shown = text.removeprefix('{"type":"flushed","timestamp":').removesuffix("}")
    assert math.isclose(float(shown), seconds, abs_tol=5.1e-7, rel_tol=1e-12)
    assert len(shown.partition(".")[2]) <= 6


@given(st.integers(0, 10 * 3600 * 48000))
def test_a_rounded_time_identifies_its_sample(sample: int):
    message = decoded(pb.TranscribeResponse(speech_start={"timestamp": sample / 48000}))
    assert round(message["timestamp"] * 48000) == sample


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_unchanged(text: str):
    assert decoded(pb.TranscribeResponse(final={"text": text}))["text"] == text


def test_an_error_has_the_metadata_of_its_reason() -> None:
    close_reason = CloseReason("SESSION_RESUMED", "no", {"resumed_by": "sess_1", "code": "not this"})
    message = json.loads(encode_error(close_reason))
    assert (message["resumed_by"], message["code"]) == ("sess_1", "session_resumed")


def test_the_error_message():
    assert json.loads(encode_error(CloseReason("INVALID_MESSAGE", "no"))) == {
        "type": "error",
        "code": "invalid_message",
        "message": "no",
        "recoverable": False,
    }
