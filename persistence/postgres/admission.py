"""Whether a caller may begin a session, and which one it may continue: checked in the transaction that begins it."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import SessionNotFound, SessionResumed, TokenSpent, TooManySessions
from domain.session_id import format_session_id
from domain.tenancy import REFUSALS, Caller
from persistence.postgres.tables import HAS_NOTHING, RUNS

# A transaction that continues a session holds its row: the second of two sees what the first has done.
_LOCK_PREVIOUS = text("""
    SELECT id FROM realtime_sessions
    WHERE id = :previous AND tenant_id = :tenant_id AND deleted_at IS NULL FOR NO KEY UPDATE
""")
# A client that lost its connection before `session_begin` does not know of the session that was to continue its own.
_UNLINK_EMPTY = text(f"""
    UPDATE realtime_sessions AS s SET previous_session_id = NULL, resume_from_seconds = NULL
    WHERE s.previous_session_id = :previous AND {HAS_NOTHING} AND NOT {RUNS}
""")  # noqa: S608 - no input
_NEXT = text("SELECT id FROM realtime_sessions WHERE previous_session_id = :previous AND deleted_at IS NULL")

# Held until the transaction ends. The next statement sees what the previous holder has committed.
_LOCK_TENANT = text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 0))")

_COUNT_RUNNING = text(f"""
    SELECT count(*) FROM realtime_sessions AS s
    WHERE s.tenant_id = :tenant_id AND {RUNS} AND s.deleted_at IS NULL AND s.source = 'live'
        AND s.id IS DISTINCT FROM CAST(:instead_of AS uuid)
""")  # noqa: S608 - no input

_HAS_TOKEN = text("SELECT 1 FROM realtime_tokens WHERE secret_hash = :hash AND expires_at > now()")
_SPEND = text("DELETE FROM realtime_tokens WHERE secret_hash = :hash AND expires_at > now() RETURNING key_id")


async def admit(connection: AsyncConnection, caller: Caller, instead_of: UUID | None) -> None:
    """Spends the caller's token, and takes one of its tenant's places until the transaction ends.

    Args:
        instead_of: a session that does not count.

    Raises:
        TooManySessions: the tenant runs as many sessions as it may.
        TokenSpent: the token has begun another session, or has expired.
    """
    if caller.token_hash is not None:
        spent = await connection.execute(_SPEND, {"hash": caller.token_hash})
        if spent.one_or_none() is None:
            raise TokenSpent
    if caller.limits.max_sessions is not None:
        await connection.execute(_LOCK_TENANT, {"tenant": str(caller.tenant_id)})
        await _refuse_too_many(connection, caller, instead_of)


async def refuse(connection: AsyncConnection, caller: Caller, instead_of: UUID | None) -> None:
    """Raises what `admit` would raise now, without spending or taking anything."""
    if caller.token_hash is not None:
        kept = await connection.execute(_HAS_TOKEN, {"hash": caller.token_hash})
        if kept.one_or_none() is None:
            raise TokenSpent
    await _refuse_too_many(connection, caller, instead_of)


async def _refuse_too_many(connection: AsyncConnection, caller: Caller, instead_of: UUID | None) -> None:
    limit = caller.limits.max_sessions
    if limit is None:
        return
    names = {"tenant_id": caller.tenant_id, "instead_of": instead_of}
    if (await connection.execute(_COUNT_RUNNING, names)).scalar_one() >= limit:
        REFUSALS.labels("sessions").inc()
        raise TooManySessions(limit)


async def link(connection: AsyncConnection, tenant_id: UUID, previous: UUID) -> None:
    """Locks the session to be continued until the transaction ends, and unlinks sessions without audio from it.

    Raises:
        SessionNotFound: the tenant has no session of this id.
        SessionResumed: another session continues it.
    """
    names = {"previous": previous, "tenant_id": tenant_id}
    if (await connection.execute(_LOCK_PREVIOUS, names)).one_or_none() is None:
        raise SessionNotFound(format_session_id(previous))
    await connection.execute(_UNLINK_EMPTY, names)
    other = (await connection.execute(_NEXT, names)).scalar_one_or_none()
    if other is not None:
        raise SessionResumed(format_session_id(previous), format_session_id(other))
