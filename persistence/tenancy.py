"""Whose call this is. Every read and write of a session is scoped to it."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from uuid import UUID

DEFAULT_TENANT_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
"""The tenant of every caller where authentication is off; the first migration creates it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call."""

    tenant_id: UUID


current_caller: ContextVar[Caller] = ContextVar("current_caller")
"""Set by authentication. Without a default: code that runs unauthenticated by mistake fails instead of guessing."""
