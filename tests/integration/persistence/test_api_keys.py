"""Keys, tokens, tenants and their limits on a real Postgres."""

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from domain.credentials import new_key, parse_secret
from domain.errors import InvalidFilter, InvalidKeyId, KeyEnded, KeyNotFound, TokenSpent, TooManyKeys, TooManySessions
from domain.session_id import new_session_id, parse_session_id
from domain.tenancy import Caller, TenantLimits
from persistence import access
from persistence.postgres import api_keys
from persistence.postgres.api_keys import KeyStore, parse_key_id
from persistence.postgres.database import Database, open_database
from persistence.postgres.key_upkeep import KeyCleanup, KeyUses
from persistence.postgres.rows import SessionRows
from persistence.postgres.tenants import TenantStore
from persistence.session_values import SessionStart


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
async def worker(postgres_url: str) -> str:
    """A process with a lease."""
    worker_id = f"worker-{uuid.uuid4().hex}"
    await _execute(
        postgres_url,
        "INSERT INTO workers (id, started_at, lease_expires_at) VALUES ($1, now(), now() + interval '1 hour')",
        worker_id,
    )
    return worker_id


async def _execute(url: str, statement: str, *values: Any) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


def a_start(tenant_id: uuid.UUID, worker_id: str) -> SessionStart:
    return SessionStart(
        id=parse_session_id(new_session_id()),
        tenant_id=tenant_id,
        worker_id=worker_id,
        started_at=datetime.now(UTC),
        language="en",
        model="fast",
        encoding="pcm_s16le",
        sample_rate=16000,
        channels=1,
        store_audio=False,
        store_transcript=False,
    )


async def test_a_key_is_found_by_its_secret_only(keys: KeyStore, tenant: uuid.UUID) -> None:
    key, secret = await keys.create(tenant, "ci", ["realtime", "admin", "admin"], timedelta(hours=1))
    shown = parse_secret(secret)
    assert shown is not None
    grant = await keys.find(shown)
    assert grant is not None
    assert (grant.key_id, grant.tenant_id, grant.scopes) == (key.id, tenant, {"realtime", "admin"})
    assert grant.expires_at == key.expires_at
    assert grant.revoked_at is None
    assert key.scopes == ("admin", "realtime")
    assert secret.startswith(key.prefix)
    other = parse_secret(new_key())
    assert other is not None
    assert await keys.find(other) is None


async def test_no_secret_is_in_the_database(keys: KeyStore, tenant: uuid.UUID, postgres_url: str) -> None:
    key, secret = await keys.create(tenant, "ci", ["realtime"])
    token, _ = await keys.create_token(key.id, timedelta(minutes=1))
    connection = await asyncpg.connect(postgres_url)
    rows = await connection.fetch("SELECT k::text FROM api_keys k UNION ALL SELECT t::text FROM realtime_tokens t")
    await connection.close()
    dump = "\n".join(row[0] for row in rows)
    assert key.prefix in dump
    assert secret[len(key.prefix) :] not in dump
    assert token[3:] not in dump


async def test_keys_are_listed_newest_first_including_ended_ones(keys: KeyStore, tenant: uuid.UUID) -> None:
    made = [(await keys.create(tenant, str(number), ["realtime"]))[0] for number in range(5)]
    await keys.revoke(tenant, made[2].key_id)
    first = await keys.list(tenant, 2)
    second = await keys.list(tenant, 2, first.next_cursor)
    third = await keys.list(tenant, 2, second.next_cursor)
    listed = [*first.keys, *second.keys, *third.keys]
    assert [key.name for key in listed] == ["4", "3", "2", "1", "0"]
    assert third.next_cursor is None
    assert [key.name for key in listed if key.revoked_at] == ["2"]
    for wrong in ({"limit": 0}, {"limit": 101}, {"limit": 5, "cursor": "abc"}):
        with pytest.raises(InvalidFilter):
            await keys.list(tenant, **wrong)  # type: ignore[arg-type]


async def test_a_key_is_revoked_once_and_by_its_own_tenant_only(keys: KeyStore, tenant: uuid.UUID) -> None:
    key, secret = await keys.create(tenant, "ci", ["realtime"])
    with pytest.raises(KeyNotFound):
        await keys.revoke(uuid.uuid4(), key.key_id)
    assert (await keys.list(uuid.uuid4(), 10)).keys == ()
    revoked = await keys.revoke(tenant, key.key_id)
    assert revoked.revoked_at is not None
    assert (await keys.revoke(tenant, key.key_id)).revoked_at == revoked.revoked_at
    shown = parse_secret(secret)
    assert shown is not None
    grant = await keys.find(shown)
    assert grant is not None
    assert grant.revoked_at == revoked.revoked_at
    for wrong in ("", "42", key.id.hex, f"key_{key.id}"):
        with pytest.raises(InvalidKeyId):
            parse_key_id(wrong)


async def test_no_key_outlives_the_key_that_made_it(keys: KeyStore, tenant: uuid.UUID, postgres_url: str) -> None:
    short, long = timedelta(minutes=5), timedelta(hours=5)
    maker, _ = await keys.create(tenant, "maker", ["admin"], timedelta(hours=1))
    made = [
        (await keys.create(tenant, "made", ["admin"], wanted, created_by=maker.id))[0] for wanted in (None, short, long)
    ]
    assert [key.expires_at == maker.expires_at for key in made] == [True, False, True]
    assert made[1].expires_at is not None
    assert made[1].expires_at - made[1].created_at == short
    lasting, _ = await keys.create(tenant, "lasting", ["admin"])
    assert (await keys.create(tenant, "made", ["admin"], created_by=lasting.id))[0].expires_at is None
    connection = await asyncpg.connect(postgres_url)
    makers = await connection.fetchval("SELECT created_by FROM api_keys WHERE id = $1", made[0].id)
    await connection.close()
    assert makers == maker.id


@pytest.mark.parametrize("way", ["revoked", "expired"])
async def test_an_ended_key_in_a_cache_cannot_make_or_revoke_keys(
    keys: KeyStore, tenant: uuid.UUID, postgres_url: str, way: str
) -> None:
    maker, _ = await keys.create(tenant, "maker", ["admin", "realtime"])
    other, _ = await keys.create(tenant, "other", ["admin"])
    if way == "revoked":
        await keys.revoke(tenant, maker.key_id)
    else:
        await _execute(postgres_url, "UPDATE api_keys SET expires_at = now() WHERE id = $1", maker.id)
    with pytest.raises(KeyEnded):
        await keys.create(tenant, "permanent", ["admin"], created_by=maker.id)
    with pytest.raises(KeyEnded):
        await keys.create_token(maker.id, timedelta(seconds=60))
    with pytest.raises(KeyEnded):
        await keys.revoke(tenant, other.key_id, revoked_by=maker.id)
    assert [key.name for key in (await keys.list(tenant, 10)).keys] == ["other", "maker"]
    assert (await keys.revoke(tenant, maker.key_id, revoked_by=other.id)).revoked_at is not None


async def test_after_a_revocation_the_list_has_all_keys_that_the_key_made(keys: KeyStore, tenant: uuid.UUID) -> None:
    maker, _ = await keys.create(tenant, "maker", ["admin"])
    made: list[uuid.UUID] = []

    async def make() -> None:
        for _ in range(10):
            made.append((await keys.create(tenant, "made", ["realtime"], created_by=maker.id))[0].id)  # noqa: PERF401

    makers = [asyncio.create_task(make()) for _ in range(4)]
    await asyncio.sleep(0.1)
    await keys.revoke(tenant, maker.key_id)
    seen = {key.id for key in (await keys.list(tenant, 100)).keys if key.created_by == maker.id}
    outcomes = await asyncio.gather(*makers, return_exceptions=True)
    assert {type(each) for each in outcomes} <= {KeyEnded, type(None)}
    assert set(made) == seen, "one was made after it"


async def test_two_keys_that_revoke_each_other_do_not_deadlock(keys: KeyStore, tenant: uuid.UUID) -> None:
    for _ in range(10):
        one, _ = await keys.create(tenant, "one", ["admin"])
        other, _ = await keys.create(tenant, "other", ["admin"])
        outcomes = await asyncio.gather(
            keys.revoke(tenant, one.key_id, revoked_by=other.id),
            keys.revoke(tenant, other.key_id, revoked_by=one.id),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in outcomes) == ["ApiKey", "KeyEnded"]


async def test_uses_are_written_in_batches_and_never_decrease(keys: KeyStore, tenant: uuid.UUID) -> None:
    key, _ = await keys.create(tenant, "ci", ["realtime"])
    uses = KeyUses(keys, pause_seconds=0.05)
    running = asyncio.create_task(uses.run())
    before = datetime.now(UTC)
    uses.note(key.id)
    async with asyncio.timeout(5):
        while (used := (await keys.list(tenant, 1)).keys[0].last_used_at) is None:  # noqa: ASYNC110 - it is in Postgres
            await asyncio.sleep(0.02)
    running.cancel()
    assert before <= used
    await keys.note_uses({key.id: before - timedelta(hours=1)})
    assert (await keys.list(tenant, 1)).keys[0].last_used_at == used


async def test_uses_are_kept_while_postgres_is_unavailable(
    keys: KeyStore, tenant: uuid.UUID, proxied: Callable[..., Any], postgres_proxy: Any
) -> None:
    key, _ = await keys.create(tenant, "ci", ["realtime"])
    async with open_database(proxied()) as through:
        uses = KeyUses(KeyStore(through))
        uses.note(key.id)
        postgres_proxy.refuse()
        await uses.flush()
        postgres_proxy.restore()
        await uses.flush()
    assert (await keys.list(tenant, 1)).keys[0].last_used_at is not None


async def test_uses_wait_for_no_transaction_that_has_a_key(
    keys: KeyStore, tenant: uuid.UUID, postgres_url: str
) -> None:
    """A revocation has the key that it is made with, and then wants another: one that waited would be in a deadlock."""
    revoker, revoked, other = [(await keys.create(tenant, name, ["admin"]))[0] for name in ("a", "b", "c")]
    uses = KeyUses(keys)
    for key in (revoker, revoked, other):
        uses.note(key.id)
    connection = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM api_keys WHERE id = $1 FOR SHARE", revoker.id)
            async with asyncio.timeout(5):
                await uses.flush()
            # Those that were written are locked by nobody any more.
            await connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.id)
            shown = {key.id: key.last_used_at for key in (await keys.list(tenant, 10)).keys}
            assert shown[other.id] is not None
            assert shown[revoker.id] is None
    finally:
        await connection.close()
    await uses.flush()
    assert all(key.last_used_at is not None for key in (await keys.list(tenant, 10)).keys)


async def test_concurrent_admissions_with_one_token_begin_one_session(
    keys: KeyStore, database: Database, tenant: uuid.UUID, worker: str
) -> None:
    key, _ = await keys.create(tenant, "page", ["realtime"])
    token, expires_at = await keys.create_token(key.id, timedelta(seconds=30))
    shown = parse_secret(token)
    assert shown is not None
    assert shown.kind == "token"
    grant = await keys.find(shown)
    assert grant is not None
    assert (grant.key_id, grant.tenant_id, grant.expires_at) == (key.id, tenant, expires_at)
    rows = SessionRows(database, worker)
    caller = Caller(tenant, token_hash=shown.hash)
    begun = await asyncio.gather(
        *(rows.admit(a_start(tenant, worker), caller) for _ in range(8)), return_exceptions=True
    )
    assert begun.count(None) == 1
    assert [type(each) for each in begun].count(TokenSpent) == 7
    assert await keys.find(shown) is None


async def test_an_expired_token_is_refused_and_deleted(
    keys: KeyStore, database: Database, tenant: uuid.UUID, worker: str, postgres_url: str
) -> None:
    key, _ = await keys.create(tenant, "page", ["realtime"], timedelta(seconds=60))
    late = parse_secret((await keys.create_token(key.id, timedelta(seconds=-1)))[0])
    assert late is not None
    grant = await keys.find(late)
    assert grant is not None
    assert grant.is_expired(datetime.now(UTC))
    with pytest.raises(TokenSpent):
        await SessionRows(database, worker).admit(a_start(tenant, worker), Caller(tenant, token_hash=late.hash))
    long = parse_secret((await keys.create_token(key.id, timedelta(hours=9)))[0])
    assert long is not None
    found = await keys.find(long)
    assert found is not None
    assert found.expires_at == key.expires_at, "no token outlives its key"
    cleanup = asyncio.create_task(KeyCleanup(keys, pause_seconds=0.05).run())
    async with asyncio.timeout(5):
        while await keys.find(late):  # noqa: ASYNC110 - it is in Postgres
            await asyncio.sleep(0.02)
    cleanup.cancel()
    assert await keys.find(long), "and no other"


async def test_keys_are_listed_for_a_while_after_they_ended(
    keys: KeyStore, tenant: uuid.UUID, postgres_url: str
) -> None:
    ages = {"revoked": ("revoked_at", 91), "expired": ("expires_at", 91), "late": ("revoked_at", 89), "living": None}
    for name, age in ages.items():
        key, _ = await keys.create(tenant, name, ["realtime"], timedelta(hours=1))
        await keys.create_token(key.id, timedelta(hours=1))
        if age is not None:
            ago = f"UPDATE api_keys SET {age[0]} = now() - interval '{age[1]} days' WHERE id = $1"  # noqa: S608
            await _execute(postgres_url, ago, key.id)
    while await keys.delete_expired():
        pass
    assert [key.name for key in (await keys.list(tenant, 10)).keys] == ["living", "late"]


async def test_the_limit_of_keys_does_not_apply_to_the_operator(
    keys: KeyStore, tenant: uuid.UUID, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_MOST_KEYS", 4)
    maker, _ = await keys.create(tenant, "maker", ["admin"])
    ended, _ = await keys.create(tenant, "ended", ["admin"])
    await keys.revoke(tenant, ended.key_id)
    made = await asyncio.gather(
        *(keys.create(tenant, "made", ["realtime"], created_by=maker.id) for _ in range(8)), return_exceptions=True
    )
    assert [isinstance(each, TooManyKeys) for each in made].count(True) == 5
    operators, _ = await keys.create(tenant, "operator's", ["admin"])
    last = next(each[0] for each in made if isinstance(each, tuple))
    for key in (last, operators):
        await keys.revoke(tenant, key.key_id)
    other, _ = await keys.create(tenant, "made", ["realtime"], created_by=maker.id)
    assert other.name == "made"


async def test_concurrent_admissions_cannot_exceed_the_limit_of_sessions(
    database: Database, tenant: uuid.UUID, worker: str, postgres_url: str
) -> None:
    other = f"{worker}-b"
    await _execute(
        postgres_url,
        "INSERT INTO workers (id, started_at, lease_expires_at) VALUES ($1, now(), now() + interval '1 hour')",
        other,
    )
    caller = Caller(tenant, TenantLimits(max_sessions=3))
    servers = SessionRows(database, worker), SessionRows(database, other)
    begun = await asyncio.gather(
        *(servers[n % 2].admit(a_start(tenant, servers[n % 2].worker_id), caller) for n in range(9)),
        return_exceptions=True,
    )
    assert [each is None for each in begun].count(True) == 3
    assert [isinstance(each, TooManySessions) for each in begun].count(True) == 6


async def test_a_refused_session_spends_no_token(
    keys: KeyStore, database: Database, tenant: uuid.UUID, worker: str
) -> None:
    key, _ = await keys.create(tenant, "page", ["realtime"])
    shown = parse_secret((await keys.create_token(key.id, timedelta(seconds=30)))[0])
    assert shown is not None
    rows = SessionRows(database, worker)
    with pytest.raises(TooManySessions):
        await rows.admit(a_start(tenant, worker), Caller(tenant, TenantLimits(max_sessions=0), token_hash=shown.hash))
    await rows.admit(a_start(tenant, worker), Caller(tenant, TenantLimits(max_sessions=1), token_hash=shown.hash))


async def test_sessions_of_a_dead_server_and_of_other_tenants_do_not_count(
    database: Database, tenant: uuid.UUID, worker: str, postgres_url: str
) -> None:
    rows = SessionRows(database, worker)
    caller = Caller(tenant, TenantLimits(max_sessions=1))
    neighbour = uuid.uuid4()
    await _execute(postgres_url, "INSERT INTO tenants (id, name) VALUES ($1, $2)", neighbour, str(neighbour))
    await rows.admit(a_start(tenant, worker), caller)
    with pytest.raises(TooManySessions):
        await rows.admit(a_start(tenant, worker), caller)
    await rows.admit(a_start(neighbour, worker), replace(caller, tenant_id=neighbour))
    await _execute(postgres_url, "UPDATE workers SET lease_expires_at = now() WHERE id = $1", worker)
    await rows.admit(a_start(tenant, worker), caller)


async def test_running_sessions_are_counted_by_an_index(database: Database, tenant: uuid.UUID) -> None:
    from persistence.postgres.admission import _COUNT_RUNNING

    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = text(f"EXPLAIN {_COUNT_RUNNING.text}")
        plan = "\n".join((await connection.execute(explain, {"tenant_id": tenant, "instead_of": None})).scalars())
    assert "ix_realtime_sessions_list_status" in plan
    assert "tenant_id" in plan.partition("Index Cond")[2]
    assert "status" in plan.partition("Index Cond")[2]


async def test_limits_are_in_the_grant_and_can_be_reset_to_the_default(keys: KeyStore, database: Database) -> None:
    store, name = TenantStore(database), f"tenant {uuid.uuid4().hex}"
    tenant = await store.ensure(name)
    assert tenant.limits == TenantLimits()
    secret = parse_secret((await keys.create(tenant.id, "ci", ["realtime"]))[1])
    assert secret is not None
    again = await store.ensure(name, {"max_sessions": 2, "requests_per_second": 1.5})
    assert (again.id, again.limits) == (tenant.id, TenantLimits(2, 1.5))
    grant = await keys.find(secret)
    assert grant is not None
    assert grant.limits.over(TenantLimits(9, 9, 9, 9)) == TenantLimits(2, 1.5, 9, 9)
    assert (await store.ensure(name, {"max_sessions": None})).limits == TenantLimits(None, 1.5)
    assert tenant.id in [each.id for each in await store.list()]


@pytest.mark.parametrize("text_of", ["", "dk_", "dk_" + "a" * 42, "dk_" + "a" * 44, "xx_" + "a" * 43, "t_" + "a" * 43])
def test_text_in_another_form_is_not_a_secret(text_of: str) -> None:
    assert parse_secret(text_of) is None


def test_secrets_are_random_and_never_shown() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) == 46 and each.startswith("dk_") for each in made)
    secret = parse_secret(made.pop())
    assert repr(secret) == "Secret(key)"


async def _command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = await asyncio.to_thread(access.main, list(words))
    return code, capsys.readouterr().out


async def test_the_operator_makes_tenants_keys_and_limits(
    keys: KeyStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DALSTON_DATABASE_URL", postgres_url)
    name = f"acme {uuid.uuid4().hex}"
    words = ("create-key", "--tenant", name, "--name", "first", "--scopes", "admin,realtime")
    code, out = await _command(capsys, *words, "--expires-in-seconds", "3600", "--json")
    assert code == 0
    made = json.loads(out)
    secret = parse_secret(made["secret"])
    assert secret is not None
    grant = await keys.find(secret)
    assert grant is not None
    assert grant.scopes == {"admin", "realtime"}
    code, out = await _command(capsys, *words)
    assert code == 0
    assert out.count("dk_") == 2, "prefix and secret, in words"
    code, out = await _command(capsys, "set-limits", "--tenant", name, "--max-sessions", "3", "--json")
    assert json.loads(out)["max_sessions"] == 3
    code, out = await _command(capsys, "set-limits", "--tenant", name, "--max-sessions", "default", "--json")
    assert json.loads(out) == {
        "id": str(grant.tenant_id),
        "name": name,
        "max_sessions": None,
        "requests_per_second": None,
        "max_session_seconds": None,
        "idle_timeout_seconds": None,
        "max_storage_bytes": None,
        "max_jobs": None,
        "max_queued_jobs": None,
        "max_upload_bytes": None,
    }
    code, out = await _command(capsys, "set-limits", "--tenant", name, "--max-storage-gib", "1.5", "--json")
    assert json.loads(out)["max_storage_bytes"] == 3 * 2**29
    code, out = await _command(capsys, "set-limits", "--tenant", name, "--max-storage-bytes", "1000", "--json")
    assert json.loads(out)["max_storage_bytes"] == 1000
    code, out = await _command(
        capsys, "set-limits", "--tenant", name, "--max-jobs", "4", "--max-queued-jobs", "20", "--json"
    )
    assert (json.loads(out)["max_jobs"], json.loads(out)["max_queued_jobs"]) == (4, 20)
    code, out = await _command(capsys, "tenants")
    assert name in out
    code, out = await _command(capsys, "tenants", "--json")
    assert [each["stored_bytes"] for each in json.loads(out) if each["name"] == name] == [0]


async def test_limits_of_an_unknown_tenant_are_refused_without_creating_it(
    keys: KeyStore,
    database: Database,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DALSTON_DATABASE_URL", postgres_url)
    name = f"acme {uuid.uuid4().hex}"
    store = TenantStore(database)
    await store.ensure(name)
    for limits in ([], ["--max-sessions", "3"]):
        code = await asyncio.to_thread(access.main, ["set-limits", "--tenant", f"{name}e", *limits])
        error = capsys.readouterr().err
        assert code == 1
        assert f"there is no tenant '{name}e'; did you mean '{name}'?" in error
        assert "--create" in error
    assert f"{name}e" not in [each.name for each in await store.list()]
    code, out = await _command(
        capsys, "set-limits", "--tenant", f"{name}e", "--create", "--max-sessions", "3", "--json"
    )
    assert (code, json.loads(out)["max_sessions"]) == (0, 3)
    assert f"{name}e" in [each.name for each in await store.list()]


@pytest.mark.parametrize(
    "words",
    [
        ["create-key", "--tenant", "a", "--name", "b", "--scopes", "everything"],
        ["create-key", "--tenant", "", "--name", "b", "--scopes", "admin"],
        ["create-key", "--tenant", "a", "--name", "b", "--scopes", "admin", "--expires-in-seconds", "1"],
        ["set-limits", "--tenant", "a", "--max-sessions", "-1"],
        ["set-limits", "--tenant", "a", "--requests-per-second", "nan"],
        ["set-limits", "--tenant", "a", "--max-storage-gib", "nan"],
        ["set-limits", "--tenant", "a", "--max-storage-bytes", "1.5"],
    ],
)
def test_invalid_arguments_are_reported_to_the_operator(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        access.main(words)
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err or "everything" in words


async def test_an_unavailable_database_is_reported_to_the_operator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DALSTON_DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
    assert await asyncio.to_thread(access.main, ["tenants"]) == 1
    assert "database" in capsys.readouterr().err


async def test_a_missing_schema_is_reported_with_the_command_to_migrate(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"test_{uuid.uuid4().hex}"
    await _execute(postgres_url, f"CREATE DATABASE {name}")
    monkeypatch.setenv("DALSTON_DATABASE_URL", urlsplit(postgres_url)._replace(path=f"/{name}").geturl())
    assert await asyncio.to_thread(access.main, ["tenants"]) == 1
    assert "persistence.migrate" in capsys.readouterr().err
