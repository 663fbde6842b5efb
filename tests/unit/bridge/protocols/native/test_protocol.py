import json

import pytest
from dalston.v1 import transcription_pb2 as pb
from websockets.datastructures import Headers

from bridge.protocols.interface import ClientText, End
from bridge.protocols.native.protocol import PATH, NativeProtocol
from edge.closing import COMPLETED, close_reason_for
from edge.refusal import Refused

BEGIN = pb.TranscribeResponse(session_begin=pb.SessionBegin(session_id="sess_0"))


def opened(query: str = "") -> NativeProtocol:
    protocol = NativeProtocol()
    protocol.opening(PATH, query, Headers())
    return protocol


def kinds(texts) -> list[str]:
    return [json.loads(text)["type"] for text in texts]


def test_the_opening_has_the_config_and_the_key():
    opening = NativeProtocol().opening(PATH, "language=en&token=k", Headers())
    assert opening.config == pb.TranscribeConfig(language="en")
    assert opening.authorization == "Bearer k"
    assert "Bearer" not in repr(opening)
    assert NativeProtocol().opening(PATH, "", Headers({"Authorization": "Bearer k"})).authorization == "Bearer k"


def test_two_different_keys_are_refused():
    with pytest.raises(Refused) as caught:
        NativeProtocol().opening(PATH, "token=a", Headers({"Authorization": "Bearer b"}))
    assert caught.value.reason == "UNAUTHENTICATED"


def test_an_end_message_is_the_end_and_audio_is_not():
    protocol = opened()
    assert list(protocol.receive('{"type":"end"}')) == [End()]
    assert list(protocol.receive(b"")) == [pb.TranscribeRequest(audio=b"")]


def test_warnings_wait_for_session_begin():
    protocol = opened("retention=30d")
    assert len(protocol.receive('{"type":"clear"}')) == 1
    texts = protocol.send(BEGIN)
    assert kinds(texts) == ["session.begin", "warning", "warning"]
    assert [json.loads(text)["name"] for text in texts[1:]] == ["retention", "clear"]
    request, warning = protocol.receive('{"type":"clear"}')
    assert request.control.HasField("keep_alive")
    assert isinstance(warning, ClientText)
    assert kinds(protocol.send(pb.TranscribeResponse(flushed={}))) == ["flushed"]


def test_a_session_that_ends_at_once_gets_no_warnings():
    assert kinds(opened("retention=30d").send(pb.TranscribeResponse(session_end={}))) == ["session.end"]


def test_a_response_of_a_newer_server_is_left_out():
    assert list(opened().send(pb.TranscribeResponse())) == []


def test_an_error_is_sent_before_the_close_and_completion_is_no_error():
    closing = opened().close(close_reason_for("NO_CAPACITY", "full"))
    assert (closing.code, closing.reason) == (4503, "no_capacity")
    assert json.loads(closing.message or "")["recoverable"] is True
    closing = opened().close(COMPLETED)
    assert (closing.code, closing.reason, closing.message) == (1000, "", None)
