"""Where a session's objects are in the bucket."""

import re
from typing import Final, NamedTuple
from uuid import UUID

from domain.session_id import format_session_id, parse_session_id

SESSIONS_PREFIX: Final = "sessions/"

_TAIL: Final = re.compile(r"(\d{16})-(\d+)", re.ASCII)


class Tail(NamedTuple):
    """A tail object: audio that no part holds yet. Its key says all there is to know of it."""

    first_byte: int
    """Where it begins, in bytes of the session's audio; the WAV header does not count."""
    size: int

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.first_byte + self.size


def audio_key(session_id: UUID) -> str:
    """The WAV file."""
    return f"sessions/{format_session_id(session_id)}/audio.wav"


def transcript_key(session_id: UUID) -> str:
    """The JSON document."""
    return f"sessions/{format_session_id(session_id)}/transcript.json"


def tail_prefix(session_id: UUID) -> str:
    """What the keys of all tail objects of a session begin with; their order is that of the audio."""
    return f"sessions/{format_session_id(session_id)}/tail/"


def tail_key(session_id: UUID, tail: Tail) -> str:
    """A tail object."""
    return f"{tail_prefix(session_id)}{tail.first_byte:016d}-{tail.size}"


def parse_tail_key(key: str) -> Tail | None:
    """The tail behind a key, or None where it is no tail's."""
    match = _TAIL.fullmatch(key.rpartition("/")[2])
    return Tail(int(match[1]), int(match[2])) if match else None


def session_of_key(key: str) -> UUID:
    """The session that an object belongs to.

    Raises:
        InvalidSessionId: the key is none of ours.
    """
    return parse_session_id(key.removeprefix(SESSIONS_PREFIX).partition("/")[0])
