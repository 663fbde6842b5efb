"""Logins of browsers on a real Postgres."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from domain.credentials import new_login, parse_secret
from domain.errors import InvalidKeyId, InvalidLoginId, KeyEnded, KeyNotFound, LoginNotFound
from persistence.postgres.api_keys import ApiKey, KeyStore
from persistence.postgres.database import Database
from persistence.postgres.logins import MOST_LOGINS, LoginStore, format_login_id

Execute = Callable[..., Awaitable[Any]]


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def logins(database: Database) -> LoginStore:
    return LoginStore(database)


@pytest.fixture
async def key(keys: KeyStore, tenant: uuid.UUID) -> ApiKey:
    made, _ = await keys.create(tenant, "console", ["sessions:read", "admin"])
    return made


@pytest.fixture
def execute(postgres_url: str) -> Execute:
    async def run(statement: str, *values: Any) -> Any:
        connection = await asyncpg.connect(postgres_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    return run


async def found(keys: KeyStore, secret: str) -> Any:
    shown = parse_secret(secret)
    assert shown is not None
    assert shown.kind == "login"
    return await keys.find(shown)


async def test_a_login_is_its_key_for_twelve_hours(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID
) -> None:
    identity, secret = await logins.create(key.id, "Mozilla/5.0 (X11)")
    login = identity.login
    assert login is not None
    assert (identity.key, login.user_agent, login.last_used_at) == (key, "Mozilla/5.0 (X11)", None)
    assert login.expires_at - login.created_at == timedelta(hours=12)
    assert identity.tenant
    grant = await found(keys, secret)
    assert (grant.key_id, grant.tenant_id, grant.login_id) == (key.id, tenant, login.id)
    assert grant.scopes == {"sessions:read", "admin"}
    assert grant.expires_at == login.expires_at
    assert await logins.identity(key.id, login.id) == identity
    assert (await logins.identity(key.id, None)).login is None
    assert await found(keys, new_login()) is None


async def test_a_login_does_not_outlive_its_key(keys: KeyStore, logins: LoginStore, tenant: uuid.UUID) -> None:
    short, _ = await keys.create(tenant, "short", ["realtime"], timedelta(minutes=5))
    identity, _ = await logins.create(short.id, "")
    assert identity.login is not None
    assert identity.login.expires_at == short.expires_at


async def test_no_secret_of_a_login_is_in_the_database(logins: LoginStore, key: ApiKey, execute: Execute) -> None:
    _, secret = await logins.create(key.id, "browser")
    (row,) = await execute("SELECT l::text FROM logins l WHERE key_id = $1", key.id)
    assert "browser" in row[0]
    assert secret[3:] not in row[0]


async def test_what_a_browser_calls_itself_is_shortened_and_printable(logins: LoginStore, key: ApiKey) -> None:
    identity, _ = await logins.create(key.id, "a\x00b\x1b[31m\n" + "é" * 500)
    assert identity.login is not None
    assert identity.login.user_agent == ("ab[31m" + "é" * 500)[:200]


async def test_the_oldest_login_makes_room_for_a_further_one(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID
) -> None:
    first, secret = await logins.create(key.id, "first")
    made = await asyncio.gather(*(logins.create(key.id, str(number)) for number in range(MOST_LOGINS + 2)))
    listed = await logins.list(tenant, key.key_id)
    assert len(listed) == MOST_LOGINS
    times = [each.login.created_at for each in listed if each.login]
    assert times == sorted(times, reverse=True)
    assert await found(keys, secret) is None
    assert {each.login.id for each in listed if each.login} <= {each.login.id for each, _ in made if each.login}
    other, _ = await keys.create(tenant, "other", ["realtime"])
    await logins.create(other.id, "")
    assert len(await logins.list(tenant, key.key_id)) == MOST_LOGINS, "the logins of each key are counted for itself"
    assert first.login not in [each.login for each in listed]


async def test_a_deleted_login_is_not_found_again(keys: KeyStore, logins: LoginStore, key: ApiKey) -> None:
    identity, secret = await logins.create(key.id, "")
    assert identity.login is not None
    shown = parse_secret(secret)
    assert shown is not None
    assert await logins.end(identity.login.id) == shown.hash
    assert await logins.end(identity.login.id) is None
    assert await found(keys, secret) is None
    with pytest.raises(KeyEnded):
        await logins.identity(key.id, identity.login.id)


async def test_a_revoked_key_has_no_logins(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID, execute: Execute
) -> None:
    identity, secret = await logins.create(key.id, "")
    await keys.revoke(tenant, key.key_id)
    assert await found(keys, secret) is None
    assert await execute("SELECT FROM logins WHERE key_id = $1", key.id) == []
    assert await logins.list(tenant, key.key_id) == []
    with pytest.raises(KeyEnded):
        await logins.create(key.id, "")
    assert identity.login is not None
    with pytest.raises(KeyEnded):
        await logins.identity(key.id, identity.login.id)


async def test_logins_begun_while_the_key_is_revoked_end_with_it(
    keys: KeyStore, logins: LoginStore, tenant: uuid.UUID, execute: Execute
) -> None:
    for _ in range(10):
        key, _ = await keys.create(tenant, "console", ["admin"])
        await asyncio.gather(
            keys.revoke(tenant, key.key_id), *(logins.create(key.id, "") for _ in range(3)), return_exceptions=True
        )
        assert await execute("SELECT FROM logins WHERE key_id = $1", key.id) == []


async def test_a_login_is_revoked_by_the_tenant_of_its_key_only(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID
) -> None:
    identity, secret = await logins.create(key.id, "")
    assert identity.login is not None
    login_id = identity.login.login_id
    other, _ = await keys.create(tenant, "other", ["admin"])
    with pytest.raises(KeyNotFound):
        await logins.revoke(uuid.uuid4(), key.key_id, login_id, other.id)
    with pytest.raises(KeyNotFound):
        await logins.list(uuid.uuid4(), key.key_id)
    with pytest.raises(LoginNotFound):
        await logins.revoke(tenant, other.key_id, login_id, other.id)
    for wrong in ("", "login_1", key.key_id, identity.login.id.hex):
        with pytest.raises(InvalidLoginId):
            await logins.revoke(tenant, key.key_id, wrong, other.id)
    with pytest.raises(InvalidKeyId):
        await logins.list(tenant, login_id)
    await logins.revoke(tenant, key.key_id, login_id, other.id)
    assert await found(keys, secret) is None
    with pytest.raises(LoginNotFound):
        await logins.revoke(tenant, key.key_id, login_id, other.id)


async def test_an_ended_login_in_a_cache_makes_and_revokes_nothing(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID
) -> None:
    identity, _ = await logins.create(key.id, "")
    standing, _ = await logins.create(key.id, "")
    assert identity.login is not None
    assert standing.login is not None
    await logins.end(identity.login.id)
    gone = identity.login.id
    with pytest.raises(KeyEnded):
        await keys.create(tenant, "permanent", ["admin"], created_by=key.id, through=gone)
    with pytest.raises(KeyEnded):
        await keys.revoke(tenant, key.key_id, revoked_by=key.id, through=gone)
    with pytest.raises(KeyEnded):
        await keys.create_token(key.id, timedelta(minutes=1), through=gone)
    with pytest.raises(KeyEnded):
        await logins.revoke(tenant, key.key_id, standing.login.login_id, key.id, through=gone)
    made, _ = await keys.create(tenant, "made", ["admin"], created_by=key.id, through=standing.login.id)
    assert made.created_by == key.id
    await keys.create_token(key.id, timedelta(minutes=1), through=standing.login.id)


async def test_expired_logins_are_neither_listed_nor_accepted_and_are_deleted(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID, execute: Execute
) -> None:
    expired, secret = await logins.create(key.id, "")
    standing, _ = await logins.create(key.id, "")
    assert expired.login is not None
    await execute("UPDATE logins SET expires_at = now() - interval '1 s' WHERE id = $1", expired.login.id)
    assert [each.login for each in await logins.list(tenant, key.key_id)] == [standing.login]
    assert (await found(keys, secret)).has_ended(datetime.now(UTC))
    with pytest.raises(KeyEnded):
        await logins.identity(key.id, expired.login.id)
    while await keys.delete_expired():
        pass
    assert await found(keys, secret) is None
    assert len(await execute("SELECT FROM logins WHERE key_id = $1", key.id)) == 1


async def test_uses_of_logins_are_written_with_those_of_keys(
    keys: KeyStore, logins: LoginStore, key: ApiKey, tenant: uuid.UUID
) -> None:
    identity, _ = await logins.create(key.id, "")
    assert identity.login is not None
    now = datetime.now(UTC)
    await keys.note_uses({key.id: now, identity.login.id: now})
    (listed,) = await logins.list(tenant, key.key_id)
    assert listed.login is not None
    assert (listed.login.last_used_at, listed.key.last_used_at) == (now, now)
    assert listed.login.login_id == format_login_id(identity.login.id)
