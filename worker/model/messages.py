"""The messages between the worker and the process of its models: a header, fields in JSON, and raw samples.

Both processes are of one release and on one machine, so samples are in its own byte order.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from domain.job import JobRequest
from domain.transcript import TimedWord, Utterance
from server.audio.decoder import Samples

_HEADER: Final = struct.Struct("=II")
"""Bytes of the fields, and of the samples."""
_LONGEST: Final = 1 << 28
"""Bytes of either. The words of a day are a tenth of it."""


class NotAMessage(Exception):
    """What the other process has sent cannot be read."""


class Disconnected(Exception):
    """The other process has ended, or has closed the connection."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    fields: dict[str, Any]
    """What JSON can hold; `type` names the kind of message."""
    samples: Samples = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def type(self) -> str:
        """The kind of message."""
        return str(self.fields.get("type"))

    def encoded(self) -> list[bytes]:
        """The message as the other process receives it, in parts that are to be sent one after the other."""
        fields = json.dumps(self.fields, separators=(",", ":")).encode()
        samples = self.samples.astype(np.float32, copy=False).tobytes()
        return [_HEADER.pack(len(fields), len(samples)), fields, samples]


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message, in the worker.

    Raises:
        Disconnected: the other process has ended.
        NotAMessage: it has sent nonsense.
    """
    try:
        sizes = _sizes(await reader.readexactly(_HEADER.size))
        return _decoded(await reader.readexactly(sizes[0]), bytearray(await reader.readexactly(sizes[1])))
    except (asyncio.IncompleteReadError, OSError) as error:
        raise Disconnected from error


class Channel:
    """The end of the conversation in the process of the models. All methods raise Disconnected."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Message) -> None:
        """Sends a message."""
        try:
            for part in message.encoded():
                self._connection.sendall(part)
        except OSError as error:
            raise Disconnected from error

    def receive(self) -> Message:
        """The next message."""
        sizes = _sizes(self._exactly(_HEADER.size))
        return _decoded(self._exactly(sizes[0]), self._exactly(sizes[1]))

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = self._connection.recv_into(rest)
            except OSError as error:
                raise Disconnected from error
            if not count:
                raise Disconnected
            rest = rest[count:]
        return data


def _sizes(header: bytes | bytearray) -> tuple[int, int]:
    fields, samples = _HEADER.unpack(header)
    if max(fields, samples) > _LONGEST:
        raise NotAMessage("a message is too long")
    return fields, samples


def _decoded(fields: bytes | bytearray, samples: bytearray) -> Message:
    """`samples` is kept, so that the array can be written to, as torch expects."""
    try:
        found = json.loads(fields)
        if not isinstance(found, dict):
            raise NotAMessage("a message has no fields")
        return Message(found, np.frombuffer(samples, np.float32))
    except (ValueError, RecursionError) as error:
        raise NotAMessage("a message cannot be read") from error


def request_to_json(request: JobRequest) -> Any:
    """What a job is asked to do."""
    return asdict(request)


def request_from_json(shape: Any) -> JobRequest:
    """Of `request_to_json`."""
    return JobRequest(**{**shape, "vocabulary": tuple(shape["vocabulary"])})


def utterances_to_json(utterances: Iterable[Utterance]) -> list[Any]:
    """Utterances as lists, which are shorter than objects: a day of speech has 200,000 words."""
    return [
        [
            each.start,
            each.end,
            each.text,
            each.confidence,
            each.language,
            each.language_probability,
            [[word.word, word.start, word.end, word.confidence] for word in each.words],
        ]
        for each in utterances
    ]


def utterances_from_json(shape: Sequence[Any]) -> list[Utterance]:
    """Of `utterances_to_json`."""
    return [
        Utterance(start, end, text, confidence, language, probability, tuple(TimedWord(*word) for word in words))
        for start, end, text, confidence, language, probability, words in shape
    ]
