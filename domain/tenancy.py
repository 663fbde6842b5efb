"""The caller, its tenant and the limits of both. Every read and write of a session is scoped to a tenant."""

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
    """The limits of a tenant; None where it has no limit of its own."""

    max_sessions: int | None = None
    """Concurrent sessions, on all servers together."""
    requests_per_second: float | None = None
    """Calls of all kinds, on each server."""
    max_session_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    max_storage_bytes: int | None = None
    """Stored audio of all sessions together. Above it no session begins that stores anything."""
    max_jobs: int | None = None
    """Batch jobs that run at a time, on all workers."""
    max_queued_jobs: int | None = None
    """Batch jobs that wait. Above it no call creates one; the end of a session still does."""
    max_upload_bytes: int | None = None
    """Of one uploaded file."""

    def over(self, defaults: "TenantLimits") -> "TenantLimits":
        """These limits, and the default where the tenant has none."""
        return TenantLimits(
            *(
                getattr(self, name) if getattr(self, name) is not None else getattr(defaults, name)
                for name in TenantLimits.__slots__
            )
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant, the key and the limits of a call."""

    tenant_id: UUID
    limits: TenantLimits = TenantLimits()
    key_id: UUID | None = None
    """The key of the call, or the key that created its token or login."""
    token_hash: bytes | None = None
    """The token of the call, which can open one session."""
    login_id: UUID | None = None
    """The login by which the key is used; None where the call has the key itself, or a token."""


current_caller: ContextVar[Caller] = ContextVar("current_caller")
"""Set by authentication. It has no default, so that code which runs unauthenticated by mistake fails."""
