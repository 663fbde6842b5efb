"""Whose call this is, and what its tenant may use. Every read and write of a session is scoped to it."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter

DEFAULT_TENANT_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
"""The tenant of every caller where authentication is off; the first migration creates it."""

REFUSALS = Counter("dalston_tenant_refusals_total", "Calls refused by a limit of their tenant", ["limit"])


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What a tenant is held to; None where nothing is set for it."""

    max_sessions: int | None = None
    """Sessions that run at a time, on all servers together."""
    requests_per_second: float | None = None
    """Calls of all kinds, on each server."""
    max_session_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    max_storage_bytes: int | None = None
    """Of stored audio, all sessions together: from there on no session that stores anything begins."""

    def over(self, defaults: "TenantLimits") -> "TenantLimits":
        """These, and the defaults where none is set."""
        return TenantLimits(
            *(
                getattr(self, name) if getattr(self, name) is not None else getattr(defaults, name)
                for name in TenantLimits.__slots__
            )
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call."""

    tenant_id: UUID
    limits: TenantLimits = TenantLimits()
    key_id: UUID | None = None
    """The key that was shown, or that made the token that was."""
    token_hash: bytes | None = None
    """The token that was shown: it is spent by the session that it begins."""


current_caller: ContextVar[Caller] = ContextVar("current_caller")
"""Set by authentication. Without a default: code that runs unauthenticated by mistake fails instead of guessing."""
