"""The secrets that callers hold: API keys and the tokens made with them. Only their hashes are ever stored."""

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
    """What a caller shows. It is in no log: its text is in neither `repr` nor `str`."""

    kind: Literal["key", "token"]
    hash: bytes
    """SHA-256. A slow hash would protect what can be guessed; 256 random bits cannot."""

    def __repr__(self) -> str:
        return f"Secret({self.kind})"


def new_key() -> str:
    """A fresh API key: `dk_` and 32 random bytes in 43 URL-safe characters."""
    return f"dk_{secrets.token_urlsafe(32)}"


def new_token() -> str:
    """A fresh token: like a key, with `dt_`."""
    return f"dt_{secrets.token_urlsafe(32)}"


def parse_secret(text: str) -> Secret | None:
    """The secret that `text` is; None where it has the form of none: no store need be asked about that."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Secret("key" if match[1] == "dk" else "token", hashlib.sha256(text.encode("ascii")).digest())


def prefix_of(key: str) -> str:
    """As much of a key as may be shown: 48 of its 256 bits."""
    return key[:_PREFIX_LENGTH]
