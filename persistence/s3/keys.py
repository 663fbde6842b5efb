"""The keys of a session's objects in the bucket."""

import re
from typing import Final, NamedTuple
from uuid import UUID

from domain.session_id import format_session_id, parse_session_id

SESSIONS_PREFIX: Final = "sessions/"

_VERSION: Final = re.compile(r"transcripts/([1-9]\d{0,8})\.json", re.ASCII)
_TAIL: Final = re.compile(r"(\d{16})-(\d+)", re.ASCII)


class Tail(NamedTuple):
    """A tail object: audio that is in no part yet. Its key contains these values."""

    first_byte: int
    """Its offset in bytes of the session's audio, the WAV header not counted."""
    size: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.first_byte + self.size


def session_prefix(session_id: UUID) -> str:
    """The common prefix of the keys of all objects of a session."""
    return f"{SESSIONS_PREFIX}{format_session_id(session_id)}/"


def audio_key(session_id: UUID) -> str:
    """The key of the WAV file."""
    return f"{session_prefix(session_id)}audio.wav"


def transcript_key(session_id: UUID) -> str:
    """The key of the transcript."""
    return f"{session_prefix(session_id)}transcript.json"


def waveform_key(session_id: UUID) -> str:
    """The key of the waveform of the audio."""
    return f"{session_prefix(session_id)}waveform.dat"


def is_waveform_key(key: str) -> bool:
    """Whether a key is one of `waveform_key`."""
    return key.endswith("/waveform.dat")


def version_prefix(session_id: UUID) -> str:
    """The common prefix of the keys of a session's versions of the transcript, without that of the live one."""
    return f"{session_prefix(session_id)}transcripts/"


def version_key(session_id: UUID, version: int) -> str:
    """The key of a version of the transcript; the live one has `transcript_key`."""
    return f"{version_prefix(session_id)}{version}.json"


def parse_version_key(key: str) -> int | None:
    """The version of a key of `version_key`, or None where the key is not one."""
    match = _VERSION.fullmatch(key.removeprefix(SESSIONS_PREFIX).partition("/")[2])
    return int(match[1]) if match else None


def source_key(session_id: UUID) -> str:
    """The key of an uploaded file, as it was sent."""
    return f"{session_prefix(session_id)}source"


def tail_prefix(session_id: UUID) -> str:
    """The common prefix of the keys of a session's tail objects, which sort in the order of the audio."""
    return f"{session_prefix(session_id)}tail/"


def tail_key(session_id: UUID, tail: Tail) -> str:
    """The key of a tail object."""
    return f"{tail_prefix(session_id)}{tail.first_byte:016d}-{tail.size}"


def parse_tail_key(key: str) -> Tail | None:
    """The tail of a key, or None where the key is not that of a tail object."""
    match = _TAIL.fullmatch(key.rpartition("/")[2])
    return Tail(int(match[1]), int(match[2])) if match else None


def session_of_key(key: str) -> UUID:
    """The session that an object belongs to.

    Raises:
        InvalidSessionId: the key contains no session id.
    """
    return parse_session_id(key.removeprefix(SESSIONS_PREFIX).partition("/")[0])
