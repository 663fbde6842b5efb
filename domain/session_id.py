"""Session ids: `sess_` and the 32 hexadecimal digits of a UUIDv7, which sorts by time of creation."""

import re
import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

from domain.errors import InvalidSessionId

_PREFIX = "sess_"
_FORM = re.compile(r"sess_[0-9a-f]{32}", re.ASCII)


def new_session_id() -> str:
    """A new id in its public form."""
    return format_session_id(new_uuid7())


def new_uuid7() -> UUID:
    """A UUIDv7 of the current time."""
    return uuid7(time.time_ns() // 1_000_000)


def uuid7(milliseconds: int) -> UUID:
    """A UUIDv7 (RFC 9562) of a Unix time in milliseconds, its other 74 bits random."""
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def format_session_id(session_id: UUID) -> str:
    """The public form of a session id."""
    return _PREFIX + session_id.hex


def is_session_id(text: str) -> bool:
    """Whether a text is a session id in its public form."""
    return _FORM.fullmatch(text) is not None


def parse_session_id(text: str) -> UUID:
    """The id in its public form.

    Raises:
        InvalidSessionId: the text is not a session id.
    """
    if not is_session_id(text):
        raise InvalidSessionId
    return UUID(hex=text.removeprefix(_PREFIX))


def created_at(session_id: UUID) -> datetime:
    """When an id was created, to the millisecond."""
    return datetime.fromtimestamp((session_id.int >> 80) / 1000, UTC)
