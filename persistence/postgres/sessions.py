"""Reading and deleting the sessions of a tenant. Every statement names the tenant."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    Uuid,
    and_,
    case,
    cast,
    delete,
    func,
    select,
    text,
    tuple_,
    update,
)

from domain.errors import InvalidFilter, SessionActive, SessionNotFound
from domain.session import SOURCES, STATUSES, Enhancement, SessionFilter, SessionPage, SessionRecord
from domain.session_id import format_session_id
from persistence.postgres import enhancements
from persistence.postgres.cursor import Cursor
from persistence.postgres.database import Database
from persistence.postgres.job_state import PROGRESS, STEP
from persistence.postgres.tables import UNFINISHED, realtime_sessions, transcription_jobs, transcripts

MAX_LIMIT = 100
MAX_OFFSET = 100_000
MAX_COUNTED = 10_000
"""Sessions are counted up to this number: a smaller total is exact, and a longer list costs no more."""

BY_INDEX = text(
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
)
"""For the rest of the transaction: no generic plan made for the average tenant, and no sequential scan that expects a
tenant's rows early in the table. Such plans are fast for most tenants and take seconds for some."""

_t = realtime_sessions.c
_j = transcription_jobs.c
_next = realtime_sessions.alias("following")
_next_session_id = (
    select(_next.c.id)
    .where(_next.c.previous_session_id == _t.id, _next.c.tenant_id == _t.tenant_id, _next.c.deleted_at.is_(None))
    .order_by(_next.c.id)
    .limit(1)
    .correlate(realtime_sessions)
    .scalar_subquery()
    .label("next_session_id")
)
_v = transcripts.c
_is_current = and_(_v.session_id == _t.id, _v.version == _t.current_version)


def _of_current(name: str) -> ColumnElement[Any]:
    """A figure of the current transcript. That of the live one is in the row of its session."""
    of_version = select(_v[name]).where(_is_current).correlate(realtime_sessions).scalar_subquery()
    return func.coalesce(of_version, _t[name]).label(name)


_transcript_version = case((_t.transcript_uri.is_not(None), func.coalesce(_t.current_version, 1))).label(
    "transcript_version"
)
_transcript_count = (
    case((and_(_t.transcript_uri.is_not(None), _t.source == "live"), 1), else_=0)
    + select(func.count()).where(_v.session_id == _t.id).correlate(realtime_sessions).scalar_subquery()
).label("transcript_count")
_enhancement = (
    select(func.jsonb_build_object("status", _j.status, "progress", PROGRESS, "step", STEP))
    .where(_j.id == cast(func.substr(_t.enhancement_job_id, len("job_") + 1), Uuid))
    .correlate(realtime_sessions)
    .scalar_subquery()
    .label("enhancement")
)
# Columns that only persistence uses.
_INTERNAL = frozenset(
    {
        *("deleted_at", "upload_id", "stored_bytes", "processed_seconds", "has_tails", "recover_after"),
        *("end_requested_at", "current_version", "media_type", "requested_language", "vocabulary"),
    }
)
_COMPUTED = frozenset({"utterance_count", "word_count"})
_columns = [column for column in realtime_sessions.c if column.name not in _INTERNAL | _COMPUTED]
record_columns = (
    *_columns,
    *(_of_current(name) for name in sorted(_COMPUTED)),
    _next_session_id,
    _transcript_version,
    _transcript_count,
    _enhancement,
)
"""The columns of `realtime_sessions` that `record_of` reads."""


def record_of(row: Mapping[Any, Any]) -> SessionRecord:
    """The record in a row of `record_columns`."""
    enhancement = row["enhancement"]
    return SessionRecord(**{**row, "enhancement": None if enhancement is None else Enhancement(**enhancement)})


def place_of(record: SessionRecord) -> Cursor:
    """The place right after this session."""
    return Cursor(record.started_at, record.id)


def page_query(
    tenant_id: UUID, session_filter: SessionFilter, limit: int, offset: int, after: Cursor | None
) -> Select[*tuple[Any, ...]]:
    """One page plus one row, which shows whether there is a next page; each row has the total count.

    The places are read from one index in its order, without the rows: skipped rows are never read.
    """
    counted = count_query(tenant_id, session_filter).scalar_subquery().label("counted")
    page = _places(tenant_id, session_filter, after).limit(limit + 1).offset(offset).subquery("page")
    return _rows_of(page, *record_columns, counted)


def snapshot_query(
    tenant_id: UUID, session_filter: SessionFilter, limit: int, after: Cursor | None
) -> Select[*tuple[Any, ...]]:
    """One page."""
    return _rows_of(_places(tenant_id, session_filter, after).limit(limit).subquery("page"), *record_columns)


def _places(tenant_id: UUID, session_filter: SessionFilter, after: Cursor | None) -> Select[UUID, datetime]:
    places = select(_t.id, _t.started_at).where(*_matching(tenant_id, session_filter))
    if after is not None:
        places = places.where(tuple_(_t.started_at, _t.id) < tuple_(after.started_at, after.id))
    return places.order_by(_t.started_at.desc(), _t.id.desc())


def _rows_of(page: Subquery, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    query = select(*columns).join_from(page, realtime_sessions, page.c.id == _t.id)
    return query.order_by(page.c.started_at.desc(), page.c.id.desc())


def count_query(tenant_id: UUID, session_filter: SessionFilter) -> Select[int]:
    """The number of sessions that the filter matches, at most MAX_COUNTED + 1; further rows are not read."""
    some = select(_t.id).where(*_matching(tenant_id, session_filter)).limit(MAX_COUNTED + 1).subquery()
    return select(func.count()).select_from(some)


def _matching(tenant_id: UUID, session_filter: SessionFilter) -> list[ColumnElement[bool]]:
    conditions = [_t.tenant_id == tenant_id, _t.deleted_at.is_(None)]
    if session_filter.status is not None:
        conditions.append(_t.status == session_filter.status)
    if session_filter.source is not None:
        conditions.append(_t.source == session_filter.source)
    if session_filter.since is not None:
        conditions.append(_t.started_at >= session_filter.since)
    if session_filter.until is not None:
        conditions.append(_t.started_at < session_filter.until)
    return conditions


class SessionStore:
    """Reads and deletes sessions of one tenant at a time.

    All methods raise StorageUnavailable while Postgres is unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self,
        tenant_id: UUID,
        session_filter: SessionFilter | None = None,
        limit: int = 50,
        offset: int = 0,
        cursor: str | None = None,
    ) -> SessionPage:
        """One page of the tenant's sessions, newest first.

        Args:
            limit: 1 to 100.
            offset: how many of the newest to skip, 0 to 100000; 0 with a cursor.
            cursor: `next_cursor` of the page before.

        Raises:
            InvalidFilter: a parameter is out of range.
        """
        session_filter = session_filter or SessionFilter()
        _refuse_bad_filter(session_filter, limit, offset, cursor)
        after = Cursor.decode(cursor) if cursor else None
        async with self._database.transaction() as connection:
            await connection.execute(BY_INDEX)
            page = await connection.execute(page_query(tenant_id, session_filter, limit, offset, after))
            rows = [dict(row) for row in page.mappings()]
            counted = [row.pop("counted") for row in rows]
            if not rows:
                counted = [(await connection.execute(count_query(tenant_id, session_filter))).scalar_one()]
        sessions = tuple(record_of(row) for row in rows[:limit])
        next_cursor = place_of(sessions[-1]).encode() if len(rows) > limit else None
        return SessionPage(sessions, min(counted[0], MAX_COUNTED), counted[0] <= MAX_COUNTED, next_cursor)

    async def get(self, tenant_id: UUID, session_id: UUID) -> SessionRecord:
        """The record of a session.

        Raises:
            SessionNotFound: the tenant has no session of this id.
        """
        query = select(*record_columns).where(_t.tenant_id == tenant_id, _t.id == session_id, _t.deleted_at.is_(None))
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise SessionNotFound(format_session_id(session_id))
        return record_of(row)

    async def request_end(self, tenant_id: UUID, session_id: UUID) -> SessionRecord:
        """Asks the server of a running session to end it; returns the session's current record.

        A session that has ended does not change, and a repeated request has no effect.

        Raises:
            SessionNotFound: the tenant has no session of this id.
        """
        owned = (_t.tenant_id == tenant_id, _t.id == session_id, _t.deleted_at.is_(None))
        ask = (
            update(realtime_sessions)
            .where(*owned, _t.status == "active", _t.end_requested_at.is_(None))
            .values(end_requested_at=func.now())
        )
        async with self._database.transaction() as connection:
            await connection.execute(ask)
            row = (await connection.execute(select(*record_columns).where(*owned))).mappings().one_or_none()
        if row is None:
            raise SessionNotFound(format_session_id(session_id))
        return record_of(row)

    async def soft_delete(self, tenant_id: UUID, session_id: UUID) -> None:
        """Hides an ended session from its tenant; its objects and its row have to be deleted next.

        Repeating it changes nothing, so that an interrupted deletion can be completed.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            SessionActive: the session is running.
        """
        owned = (_t.tenant_id == tenant_id, _t.id == session_id)
        hide = (
            update(realtime_sessions)
            .where(*owned, _t.status != "active")
            .values(deleted_at=func.coalesce(_t.deleted_at, func.now()))
            .returning(_t.id)
        )
        async with self._database.transaction() as connection:
            earlier = await enhancements.lock_predecessors(connection, [session_id])
            if (await connection.execute(hide)).one_or_none() is not None:
                # The job of the deleted session stood for theirs.
                await enhancements.settle(connection, earlier)
                return
            if (await connection.execute(select(_t.id).where(*owned))).one_or_none() is not None:
                raise SessionActive(format_session_id(session_id))
        raise SessionNotFound(format_session_id(session_id))

    async def delete_row(self, tenant_id: UUID, session_id: UUID) -> None:
        """Deletes the row of a soft-deleted session, if there is one.

        The row of a session that a process is still storing stays: that process deletes its objects, and then the row.
        """
        statement = delete(realtime_sessions).where(
            _t.tenant_id == tenant_id,
            _t.id == session_id,
            _t.deleted_at.is_not(None),
            text(f"NOT ({UNFINISHED})"),
        )
        async with self._database.transaction() as connection:
            await connection.execute(statement)


def _refuse_bad_filter(session_filter: SessionFilter, limit: int, offset: int, cursor: str | None) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter("limit", f"limit must be 1 to {MAX_LIMIT}")
    if not 0 <= offset <= MAX_OFFSET:
        raise InvalidFilter("offset", f"offset must be 0 to {MAX_OFFSET}")
    if cursor and offset:
        raise InvalidFilter("offset", "offset and cursor exclude each other")
    if session_filter.status is not None and session_filter.status not in STATUSES:
        raise InvalidFilter("status", f"status must be one of {', '.join(STATUSES)}")
    if session_filter.source is not None and session_filter.source not in SOURCES:
        raise InvalidFilter("source", f"source must be one of {', '.join(SOURCES)}")
    for name, value in (("since", session_filter.since), ("until", session_filter.until)):
        if value is not None and not _is_aware(value):
            raise InvalidFilter(name, f"{name} must be a time with its offset from UTC")


def _is_aware(value: datetime) -> bool:
    return value.tzinfo is not None and value.utcoffset() is not None
