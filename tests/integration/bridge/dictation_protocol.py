"""A second protocol that shares nothing with the native one, to prove that the relay and the listener know neither.

It is configured by message, its audio is base64 in JSON, it authenticates with a subprotocol, it refuses at the
handshake, and a client ends a session by closing.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from http import HTTPStatus

from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest, TranscribeResponse
from websockets.datastructures import Headers

from bridge.protocols.interface import (
    Action,
    Begin,
    ClientProtocol,
    ClientText,
    Closing,
    End,
    HandshakeRefusal,
    Opening,
)
from edge.closing import CloseReason
from edge.refusal import Refused

PATH = "/v1/dictate"
QUERY_PATH = "/v1/dictate/now"
FLUSH = TranscribeRequest(control=TranscribeControl(flush=TranscribeControl.Flush()))

_HTTP = {"UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED, "INVALID_MODEL": HTTPStatus.NOT_FOUND}


class DictationProtocol(ClientProtocol):
    """The session begins with the message `start`."""

    max_frame_bytes = 200_000
    close_is_end = True
    refuses_at_handshake = True

    def opening(self, path: str, query: str, headers: Headers) -> Opening:
        keys = [item.strip() for item in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if len(keys) != 2 or keys[0] != "dictation":
            raise Refused("UNAUTHENTICATED", "a key is needed")
        return Opening(self._config(query), f"Bearer {keys[1]}", "dictation", {"dictation-version": "1"})

    def _config(self, query: str) -> TranscribeConfig | None:
        return None

    def receive(self, frame: bytes | str) -> Sequence[Action]:
        message = json.loads(frame)
        match message.get("do"):
            case "start":
                return (ClientText(_dump(started=True)), Begin(TranscribeConfig(model=message["model"], acks=True)))
            case "audio":
                return (TranscribeRequest(audio=self._audio(message)),)
            case "commit":
                return (FLUSH, ClientText(_dump(committed=True)))
            case "stop":
                return (End(),)
        raise Refused("INVALID_MESSAGE", "do one of start, audio, commit, stop")

    def _audio(self, message: dict[str, str]) -> bytes:
        try:
            return base64.b64decode(message["data"], validate=True)
        except binascii.Error:
            raise Refused("INVALID_AUDIO", "data is not base64") from None

    def send(self, response: TranscribeResponse) -> Sequence[str]:
        match response.WhichOneof("response"):
            case "flushed":
                return (_dump(text="one "), _dump(text="two"))
            case "session_end":
                return (_dump(done=response.session_end.session_id),)
        return ()

    def tick(self, audio_seconds: float) -> Sequence[str]:
        return (_dump(heartbeat=audio_seconds),)

    def close(self, reason: CloseReason) -> Closing:
        if not reason.is_error:
            return Closing(1000, "bye")
        return Closing(1008, reason.code, _dump(failed=reason.message))

    def refuse(self, reason: CloseReason) -> HandshakeRefusal:
        status = _HTTP.get(reason.reason, HTTPStatus.SERVICE_UNAVAILABLE)
        return HandshakeRefusal(status, {"dictation-error": reason.code}, reason.message.encode())


class QueryDictationProtocol(DictationProtocol):
    """The model is in the query, and the session begins inside the handshake."""

    begins_in_handshake = True

    def _config(self, query: str) -> TranscribeConfig:
        return TranscribeConfig(model=query.removeprefix("model="))


def _dump(**message: object) -> str:
    return json.dumps(message)
