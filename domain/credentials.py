"""The secrets of callers: API keys, and the tokens that are created with them. Only their hashes are stored."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal

Scope = Literal["realtime", "sessions:read", "sessions:write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("realtime", "sessions:read", "sessions:write", "admin")

_PREFIX_LENGTH: Final = 11
_FORM: Final = re.compile(r"(dk|dt)_[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Secret:
    """A key or token that a caller has sent. Its text is in neither `repr` nor `str`, and so in no log."""

    kind: Literal["key", "token"]
    hash: bytes
    """SHA-256. A slow hash protects secrets that can be guessed; 256 random bits cannot be guessed."""

    def __repr__(self) -> str:
        return f"Secret({self.kind})"


def new_key() -> str:
    """A new API key: `dk_` and 32 random bytes in 43 URL-safe characters."""
    return f"dk_{secrets.token_urlsafe(32)}"


def new_token() -> str:
    """A new token: `dt_`, and the rest as in a key."""
    return f"dt_{secrets.token_urlsafe(32)}"


def parse_secret(text: str) -> Secret | None:
    """The secret in `text`; None if the text has the form of neither a key nor a token, so that no lookup is needed."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Secret("key" if match[1] == "dk" else "token", hashlib.sha256(text.encode("ascii")).digest())


def prefix_of(key: str) -> str:
    """The part of a key that may be displayed: 48 of its 256 bits."""
    return key[:_PREFIX_LENGTH]
