"""API keys and tokens in Postgres."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Column,
    DateTime,
    Row,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    null,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.credentials import Scope, Secret, hash_of, new_key, new_token, prefix_of
from domain.errors import InvalidFilter, InvalidKeyId, KeyEnded, KeyNotFound, TooManyKeys
from domain.session_id import new_uuid7
from domain.tenancy import TenantLimits
from persistence.postgres.cursor import Cursor
from persistence.postgres.database import Database
from persistence.postgres.tables import api_keys, logins, realtime_tokens, tenants

MAX_LIMIT: Final = 100

_FORM: Final = re.compile(r"key_[0-9a-f]{32}", re.ASCII)
_MOST_KEYS: Final = 1000
"""Active keys of one tenant."""
_KEPT: Final = timedelta(days=90)
"""How long a revoked or expired key is still listed."""
_DELETED_AT_ONCE: Final = 1000

_t = api_keys.c
_SHOWN = [column for column in api_keys.c if column.name not in ("tenant_id", "secret_hash")]

_ACTIVE = _t.revoked_at.is_(None) & (_t.expires_at.is_(None) | (_t.expires_at > func.now()))
# The seed differs from that of a tenant's sessions, which do not wait for keys.
_LOCK_TENANT = text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 1))")

# An id is that of a key or of a login: no two objects share one. Rows that another transaction has locked are skipped:
# one that waited for a row while it has others, of all tenants, would be in a deadlock with revocations.
_USED = [
    text(f"""
        WITH free AS (
            SELECT t.id, u.at FROM {table} AS t JOIN unnest(:ids, :times) AS u(id, at) ON t.id = u.id
            FOR NO KEY UPDATE OF t SKIP LOCKED
        ), written AS (
            UPDATE {table} AS t SET last_used_at = greatest(t.last_used_at, free.at) FROM free WHERE t.id = free.id
        )
        SELECT t.id FROM {table} AS t WHERE t.id = ANY(:ids) AND t.id NOT IN (SELECT id FROM free)
    """).bindparams(  # noqa: S608 - the names are below
        bindparam("ids", type_=ARRAY(Uuid)), bindparam("times", type_=ARRAY(DateTime(timezone=True)))
    )
    for table in ("api_keys", "logins")
]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its tenant sees it."""

    id: UUID
    name: str
    prefix: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_by: UUID | None
    """The key that made it, which may be deleted; None: the operator made it."""

    @property
    def key_id(self) -> str:
        """The public form of the id."""
        return format_key_id(self.id)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """One page of a list, newest first."""

    keys: tuple[ApiKey, ...]
    next_cursor: str | None
    """None on the last page."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The key behind a secret, and what it permits."""

    key_id: UUID
    tenant_id: UUID
    scopes: frozenset[Scope]
    expires_at: datetime | None
    """When the secret expires: the earlier of key and token or login."""
    revoked_at: datetime | None
    limits: TenantLimits = field(default_factory=TenantLimits)
    login_id: UUID | None = None
    """Of a login."""

    def has_ended(self, now: datetime) -> bool:
        return self.revoked_at is not None or self.is_expired(now)

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


def format_key_id(key_id: UUID) -> str:
    """The public form of a key's id."""
    return f"key_{key_id.hex}"


def parse_key_id(key_id: str) -> UUID:
    """The id behind its public form.

    Raises:
        InvalidKeyId: the text has another form.
    """
    if _FORM.fullmatch(key_id) is None:
        raise InvalidKeyId
    return UUID(hex=key_id.removeprefix("key_"))


class KeyStore:
    """Makes, lists, revokes and finds keys. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant_id: UUID,
        name: str,
        scopes: Collection[Scope],
        expires_in: timedelta | None = None,
        created_by: UUID | None = None,
        through: UUID | None = None,
    ) -> tuple[ApiKey, str]:
        """Makes a key; returns it and its secret, which cannot be read again.

        Args:
            expires_in: None for never.
            created_by: the key with which it is made, which it does not outlive; None for the operator, for whom no
                limit of keys applies.
            through: the login by which that key is used; None for the key itself.

        Raises:
            TooManyKeys: the tenant has 1000 active keys.
            KeyEnded: the key that makes it was revoked or has expired, or its login has ended.
        """
        secret = new_key()
        asked = null() if expires_in is None else func.now() + expires_in
        makers = select(_t.expires_at).where(_t.id == created_by).scalar_subquery()
        values = {
            "id": new_uuid7(),
            "tenant_id": tenant_id,
            "name": name,
            "prefix": prefix_of(secret),
            "secret_hash": hash_of(secret),
            "scopes": sorted(set(scopes)),
            "expires_at": func.least(asked, makers),  # ignores NULL
            "created_by": created_by,
        }
        async with self._database.transaction() as connection:
            if created_by is not None:
                await lock_tenant(connection, tenant_id)
                await refuse_ended(connection, created_by, through)
                living = select(func.count()).select_from(api_keys).where(_t.tenant_id == tenant_id, _ACTIVE)
                if (await connection.execute(living)).scalar_one() >= _MOST_KEYS:
                    raise TooManyKeys(_MOST_KEYS)
            row = (await connection.execute(insert(api_keys).values(values).returning(*_SHOWN))).one()
        return api_key(row), secret

    async def list(self, tenant_id: UUID, limit: int, cursor: str | None = None) -> KeyPage:
        """One page of the tenant's keys, newest first.

        Args:
            limit: 1 to 100.
            cursor: `next_cursor` of the page before.

        Raises:
            InvalidFilter: a parameter is out of range.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidFilter("limit", f"limit must be 1 to {MAX_LIMIT}")
        query = select(*_SHOWN).where(_t.tenant_id == tenant_id).order_by(_t.created_at.desc(), _t.id.desc())
        if cursor:
            after = Cursor.decode(cursor)
            query = query.where(tuple_(_t.created_at, _t.id) < tuple_(after.started_at, after.id))
        async with self._database.transaction() as connection:
            keys = [api_key(row) for row in await connection.execute(query.limit(limit + 1))]
        page = tuple(keys[:limit])
        has_next = len(keys) > limit
        return KeyPage(page, Cursor(page[-1].created_at, page[-1].id).encode() if has_next else None)

    async def revoke(
        self, tenant_id: UUID, key_id: str, revoked_by: UUID | None = None, through: UUID | None = None
    ) -> ApiKey:
        """Revokes a key permanently and ends its logins; revoking it again changes nothing.

        Args:
            revoked_by: the key with which it is revoked; None for the operator.
            through: the login by which that key is used; None for the key itself.

        Raises:
            InvalidKeyId: the text is not a key id.
            KeyNotFound: the tenant has no such key.
            KeyEnded: the key that revokes it was revoked or has expired, or its login has ended.
        """
        statement = (
            update(api_keys)
            .where(_t.tenant_id == tenant_id, _t.id == parse_key_id(key_id))
            .values(revoked_at=func.coalesce(_t.revoked_at, func.now()))
            .returning(*_SHOWN)
        )
        async with self._database.transaction() as connection:
            if revoked_by is not None:
                # Without this lock two keys that revoke each other would deadlock.
                await lock_tenant(connection, tenant_id)
                await refuse_ended(connection, revoked_by, through)
            row = (await connection.execute(statement)).one_or_none()
            if row is None:
                raise KeyNotFound(key_id)
            await connection.execute(delete(logins).where(logins.c.key_id == row.id))
        return api_key(row)

    async def create_token(
        self, key_id: UUID, expires_in: timedelta, through: UUID | None = None
    ) -> tuple[str, datetime]:
        """Makes a token that begins one session; returns its secret and when it expires.

        Args:
            through: the login by which the key is used; None for the key itself.

        Raises:
            KeyEnded: the key was revoked or has expired, or its login has ended.
        """
        secret = new_token()
        values = {"secret_hash": hash_of(secret), "key_id": key_id, "expires_at": func.now() + expires_in}
        async with self._database.transaction() as connection:
            await refuse_ended(connection, key_id, through)
            made = insert(realtime_tokens).values(values).returning(realtime_tokens.c.expires_at)
            return secret, (await connection.execute(made)).scalar_one()

    async def find(self, secret: Secret) -> Grant | None:
        """The grant of a secret, also of a revoked or expired one; None for an unknown or spent one.

        The secret is looked up by its hash, so the duration of the lookup reveals nothing about other secrets.
        """
        limits = [tenants.c[name] for name in TenantLimits.__slots__]
        wanted = [_t.id, _t.tenant_id, _t.scopes, _t.revoked_at, *limits]
        if secret.kind == "key":
            query = select(*wanted, _t.expires_at).join_from(api_keys, tenants).where(_t.secret_hash == secret.hash)
        else:
            made = realtime_tokens if secret.kind == "token" else logins
            ends = func.least(made.c.expires_at, _t.expires_at).label("expires_at")
            query = select(*wanted, ends).select_from(made.join(api_keys).join(tenants))
            query = query.where(made.c.secret_hash == secret.hash)
            if secret.kind == "login":
                query = query.add_columns(logins.c.id.label("login_id"))
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return Grant(
            key_id=row.id,
            tenant_id=row.tenant_id,
            scopes=frozenset(row.scopes),
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            limits=TenantLimits(*(getattr(row, name) for name in TenantLimits.__slots__)),
            login_id=row.login_id if secret.kind == "login" else None,
        )

    async def note_uses(self, uses: Mapping[UUID, datetime]) -> set[UUID]:
        """Writes the times at which keys and logins were last used, by their ids.

        Returns:
            Those that another transaction has locked, which were not written.
        """
        ids = list(uses)
        skipped: set[UUID] = set()
        async with self._database.transaction() as connection:
            for statement in _USED:
                values = {"ids": ids, "times": [uses[each] for each in ids]}
                skipped.update((await connection.execute(statement, values)).scalars())
        return skipped

    async def delete_expired(self) -> int:
        """Deletes expired tokens and logins, and keys that ended 90 days ago, at most 1000 of each.

        Returns:
            Their number.
        """
        ended = [
            (realtime_tokens.c.secret_hash, realtime_tokens.c.expires_at < func.now()),
            (logins.c.id, logins.c.expires_at < func.now()),
            (_t.id, func.least(_t.revoked_at, _t.expires_at) < func.now() - _KEPT),
        ]
        deleted = 0
        async with self._database.transaction() as connection:
            for key, has_ended in ended:
                some = select(key).where(has_ended).limit(_DELETED_AT_ONCE).with_for_update(skip_locked=True)
                deleted += (await connection.execute(delete(key.table).where(key.in_(some)))).rowcount
        return deleted


async def lock_tenant(connection: AsyncConnection, tenant_id: UUID) -> None:
    """Waits until no other transaction makes or revokes keys of the tenant."""
    await connection.execute(_LOCK_TENANT, {"tenant": str(tenant_id)})


async def refuse_ended(
    connection: AsyncConnection, key_id: UUID, login_id: UUID | None = None, *, is_exclusive: bool = False
) -> None:
    """Refuses a key that has ended although a cache may still have it as valid, and locks it against revocation.

    Args:
        login_id: the login by which it is used, which must not have ended either; None for the key itself.
        is_exclusive: whether other transactions that do this for the key wait for this one.

    Raises:
        KeyEnded: the key was revoked, has expired, or does not exist, or the login has ended.
    """
    living = [select(_t.id).where(_t.id == key_id, _ACTIVE)]
    if login_id is not None:
        its = logins.c
        living.append(select(its.id).where(its.id == login_id, its.key_id == key_id, its.expires_at > func.now()))
    for query in living:
        locking = query.with_for_update(read=not is_exclusive, key_share=is_exclusive)
        if (await connection.execute(locking)).one_or_none() is None:
            raise KeyEnded


def shown_columns() -> list[Column[Any]]:
    """What `api_key` needs of a row."""
    return list(_SHOWN)


def api_key(row: Row[Any]) -> ApiKey:
    """The key in a row of `shown_columns` and any others."""
    values = {column.name: getattr(row, column.name) for column in _SHOWN}
    return ApiKey(**values | {"scopes": tuple(row.scopes)})
