"""Logins of browsers in Postgres."""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.credentials import hash_of, new_login
from domain.errors import InvalidLoginId, KeyEnded, KeyNotFound, LoginNotFound
from domain.session_id import new_uuid7
from persistence.postgres.api_keys import ApiKey, api_key, lock_tenant, parse_key_id, refuse_ended, shown_columns
from persistence.postgres.database import Database
from persistence.postgres.tables import api_keys, logins, tenants

MOST_LOGINS: Final = 50
"""Logins of one key. A further one ends the oldest."""
LIFETIME: Final = timedelta(hours=12)
LONGEST_USER_AGENT: Final = 200

_FORM: Final = re.compile(r"login_[0-9a-f]{32}", re.ASCII)

_l = logins.c
_SHOWN = [column for column in logins.c if column.name not in ("secret_hash", "key_id")]


@dataclass(frozen=True, slots=True)
class Login:
    """A login as the tenant of its key sees it."""

    id: UUID
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    user_agent: str
    """What the browser called itself: any text, at most 200 characters; empty where it sent no name."""

    @property
    def login_id(self) -> str:
        """The public form of the id."""
        return format_login_id(self.id)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a caller is."""

    tenant: str
    """The name of the tenant."""
    key: ApiKey
    login: Login | None
    """None where the caller sent the key itself."""


def format_login_id(login_id: UUID) -> str:
    """The public form of a login's id."""
    return f"login_{login_id.hex}"


def parse_login_id(login_id: str) -> UUID:
    """The id behind its public form.

    Raises:
        InvalidLoginId: the text has another form.
    """
    if _FORM.fullmatch(login_id) is None:
        raise InvalidLoginId
    return UUID(hex=login_id.removeprefix("login_"))


class LoginStore:
    """Makes, lists and ends logins. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key_id: UUID, user_agent: str) -> tuple[Identity, str]:
        """Makes a login of a key; returns it and its secret, which cannot be read again.

        It lasts 12 hours and no longer than the key. Beyond 50 logins of the key the oldest ends.

        Raises:
            KeyEnded: the key was revoked or has expired.
        """
        secret = new_login()
        values = {
            "id": new_uuid7(),
            "secret_hash": hash_of(secret),
            "key_id": key_id,
            "expires_at": func.least(
                func.now() + LIFETIME, select(api_keys.c.expires_at).where(api_keys.c.id == key_id).scalar_subquery()
            ),
            "user_agent": _shown(user_agent),
        }
        beyond = (
            select(_l.id)
            .where(_l.key_id == key_id)
            .order_by(_l.created_at.desc(), _l.id.desc())
            .offset(MOST_LOGINS - 1)
            .scalar_subquery()
        )
        async with self._database.transaction() as connection:
            # Exclusive, so that concurrent logins of the key are counted one after the other.
            await refuse_ended(connection, key_id, is_exclusive=True)
            await connection.execute(delete(logins).where(_l.id.in_(beyond)))
            made = (await connection.execute(insert(logins).values(values).returning(_l.id))).scalar_one()
            return await _identity(connection, key_id, made), secret

    async def identity(self, key_id: UUID, login_id: UUID | None) -> Identity:
        """Who uses a key, by a login or not.

        Raises:
            KeyEnded: the key, or its login, has ended.
        """
        async with self._database.transaction() as connection:
            await refuse_ended(connection, key_id, login_id)
            return await _identity(connection, key_id, login_id)

    async def end(self, login_id: UUID) -> bytes | None:
        """Ends a login; returns the hash of its secret, None where it has ended already."""
        gone = delete(logins).where(_l.id == login_id).returning(_l.secret_hash)
        async with self._database.transaction() as connection:
            found = (await connection.execute(gone)).scalar_one_or_none()
        return None if found is None else bytes(found)

    async def list(self, tenant_id: UUID, key_id: str) -> list[Identity]:
        """The logins of a key that have not ended, newest first: at most 50.

        Raises:
            InvalidKeyId: the text is not a key id.
            KeyNotFound: the tenant has no such key.
        """
        key = parse_key_id(key_id)
        query = (
            select(*_SHOWN)
            .where(_l.key_id == key, _l.expires_at > func.now())
            .order_by(_l.created_at.desc(), _l.id.desc())
        )
        async with self._database.transaction() as connection:
            await _refuse_unknown(connection, tenant_id, key_id)
            owner = await _identity(connection, key, None)
            return [replace(owner, login=Login(*row)) for row in await connection.execute(query)]

    async def revoke(
        self, tenant_id: UUID, key_id: str, login_id: str, revoked_by: UUID, through: UUID | None = None
    ) -> bytes:
        """Ends a login of a key; returns the hash of its secret.

        Args:
            revoked_by: the key with which it is ended.
            through: the login by which that key is used; None for the key itself.

        Raises:
            InvalidKeyId, InvalidLoginId: the text is not such an id.
            KeyNotFound: the tenant has no such key.
            LoginNotFound: the key has no such login, or it has ended.
            KeyEnded: the key that ends it, or its login, has ended.
        """
        key, login = parse_key_id(key_id), parse_login_id(login_id)
        async with self._database.transaction() as connection:
            await lock_tenant(connection, tenant_id)
            await refuse_ended(connection, revoked_by, through)
            await _refuse_unknown(connection, tenant_id, key_id)
            gone = delete(logins).where(_l.key_id == key, _l.id == login).returning(_l.secret_hash)
            found = (await connection.execute(gone)).scalar_one_or_none()
        if found is None:
            raise LoginNotFound(login_id)
        return bytes(found)


async def _refuse_unknown(connection: AsyncConnection, tenant_id: UUID, key_id: str) -> None:
    query = select(api_keys.c.id).where(api_keys.c.tenant_id == tenant_id, api_keys.c.id == parse_key_id(key_id))
    if (await connection.execute(query)).one_or_none() is None:
        raise KeyNotFound(key_id)


async def _identity(connection: AsyncConnection, key_id: UUID, login_id: UUID | None) -> Identity:
    query = select(tenants.c.name.label("tenant"), *shown_columns()).join_from(api_keys, tenants)
    row = (await connection.execute(query.where(api_keys.c.id == key_id))).one_or_none()
    if row is None:
        raise KeyEnded
    login = None
    if login_id is not None:
        found = (await connection.execute(select(*_SHOWN).where(_l.id == login_id))).one_or_none()
        if found is None:
            raise KeyEnded
        login = Login(*found)
    return Identity(row.tenant, api_key(row), login)


def _shown(user_agent: str) -> str:
    """The part that is stored. Postgres has no NUL in a text, and a list needs no control characters."""
    return "".join(each for each in user_agent if each.isprintable())[:LONGEST_USER_AGENT]
