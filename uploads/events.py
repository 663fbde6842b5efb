"""The server-sent events of a streamed answer."""

import json
from collections.abc import Sequence
from typing import Any, Final

from dalston.v1.session_pb2 import Utterance

from uploads.answers import all_logprobs, logprobs, whole_text
from uploads.errors import ApiError

CONTENT_TYPE: Final = "text/event-stream"
COMMENT: Final = b":\n\n"
"""Shows that the connection lives. Clients skip it."""


def delta(utterance: Utterance, *, is_first: bool, with_logprobs: bool) -> bytes:
    """The event of an utterance. The deltas joined are the text."""
    text = utterance.text.strip()
    event: dict[str, Any] = {"type": "transcript.text.delta", "delta": text if is_first else f" {text}"}
    if with_logprobs:
        event["logprobs"] = logprobs(utterance, is_first=is_first)
    return _event(event)


def done(utterances: Sequence[Utterance], *, with_logprobs: bool) -> bytes:
    """The last event of a stream that is complete."""
    event: dict[str, Any] = {"type": "transcript.text.done", "text": whole_text(utterances)}
    if with_logprobs:
        event["logprobs"] = all_logprobs(utterances)
    return _event(event)


def failed(error: ApiError) -> bytes:
    """The last event of a stream that failed: its clients raise the error."""
    return _event(error.body())


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
