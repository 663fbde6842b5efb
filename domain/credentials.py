"""The secrets of callers: API keys, and the tokens and logins made with them. Only their hashes are stored."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal

Scope = Literal["realtime", "sessions:read", "sessions:write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("realtime", "sessions:read", "sessions:write", "admin")

Kind = Literal["key", "token", "login"]

LOGIN_HEADER: Final = "x-dalston-login"
"""Set to 1 by Envoy, which removes it from what clients send, where it took `authorization` from the cookie of a
login."""

_PREFIX_LENGTH: Final = 11
_KINDS: Final[dict[str, Kind]] = {"dk": "key", "dt": "token", "dl": "login"}
_FORM: Final = re.compile(r"(dk|dt|dl)_[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Secret:
    """A key, token or login that a caller has sent. Its text is in neither `repr` nor `str`, and so in no log."""

    kind: Kind
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


def new_login() -> str:
    """A new login: `dl_`, and the rest as in a key."""
    return f"dl_{secrets.token_urlsafe(32)}"


@dataclass(frozen=True, slots=True)
class Authorization:
    """How a call authenticates its caller. The values are in neither `repr` nor `str`, and so in no log."""

    values: tuple[str, ...] = field(default=(), repr=False)
    """Of its header `authorization`."""
    is_from_cookie: bool = False
    """Whether Envoy took the value from the cookie of a browser, which it does for pages of this service only."""


def hash_of(made: str) -> bytes:
    """The hash of a secret that one of the functions above has made."""
    return hashlib.sha256(made.encode("ascii")).digest()


def parse_secret(text: str) -> Secret | None:
    """The secret in `text`; None if the text has the form of none, so that no lookup is needed."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Secret(_KINDS[match[1]], hash_of(text))


def prefix_of(key: str) -> str:
    """The part of a key that may be displayed: 48 of its 256 bits."""
    return key[:_PREFIX_LENGTH]
