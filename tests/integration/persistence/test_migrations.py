"""The migrations on a real Postgres."""

import asyncio
import subprocess
import sys
import uuid
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic import command

from domain.tenancy import DEFAULT_TENANT_ID
from persistence.migrate import alembic_config


@pytest.fixture
async def empty_database(postgres_url: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return urlsplit(postgres_url)._replace(path=f"/{name}").geturl()


async def test_the_migrations_create_the_declared_tables(empty_database: str) -> None:
    config = alembic_config(empty_database)
    await asyncio.to_thread(command.upgrade, config, "head")
    await asyncio.to_thread(command.check, config)


async def test_the_default_tenant_exists(empty_database: str) -> None:
    await asyncio.to_thread(command.upgrade, alembic_config(empty_database), "head")
    connection = await asyncpg.connect(empty_database)
    tenants = await connection.fetch("SELECT id, name FROM tenants")
    await connection.close()
    assert [tuple(tenant) for tenant in tenants] == [(DEFAULT_TENANT_ID, "default")]


async def test_migrations_can_be_undone_and_applied_again(empty_database: str) -> None:
    config = alembic_config(empty_database)
    for step in (command.upgrade, command.downgrade, command.upgrade):
        await asyncio.to_thread(step, config, "base" if step is command.downgrade else "head")


async def test_only_the_first_of_several_continuations_stays_linked(empty_database: str) -> None:
    config = alembic_config(empty_database)
    await asyncio.to_thread(command.upgrade, config, "0002")
    connection = await asyncpg.connect(empty_database)
    ids = [uuid.UUID(int=number) for number in range(1, 5)]
    for session_id, previous in zip(ids, (None, ids[0], ids[0], ids[1]), strict=True):
        await connection.execute(
            "INSERT INTO realtime_sessions (id, tenant_id, language, model, encoding, sample_rate, channels,"
            " store_audio, store_transcript, enhance_on_end, worker_id, started_at, previous_session_id)"
            " VALUES ($1, $2, 'en', 'fast', 'pcm_s16le', 16000, 1, false, false, false, 'w', now(), $3)",
            session_id,
            DEFAULT_TENANT_ID,
            previous,
        )
    await asyncio.to_thread(command.upgrade, config, "head")
    linked = await connection.fetch("SELECT previous_session_id FROM realtime_sessions ORDER BY id")
    assert [row[0] for row in linked] == [None, ids[0], None, ids[1]]
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("UPDATE realtime_sessions SET previous_session_id = $1 WHERE id = $2", ids[0], ids[2])
    await connection.close()


async def test_no_index_is_built_under_the_lock_that_adds_a_column(empty_database: str) -> None:
    config = alembic_config(empty_database)
    await asyncio.to_thread(command.upgrade, config, "0003")
    connection = await asyncpg.connect(empty_database)
    built = await connection.fetchval("SELECT to_regclass('ix_realtime_sessions_resumed')")
    await connection.close()
    assert built is None


async def test_concurrent_migrations_run_one_after_the_other(empty_database: str) -> None:
    commands = [sys.executable, "-m", "persistence.migrate"]
    environment = {"DALSTON_DATABASE_URL": empty_database}
    running = [
        await asyncio.create_subprocess_exec(*commands, env=environment, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in running:
        _, messages = await process.communicate()
        assert process.returncode == 0, messages.decode()


@pytest.mark.parametrize(("url", "code"), [("postgresql://x@127.0.0.1:1/x", 1), ("mysql://x@127.0.0.1:1/x", 2)])
async def test_a_failed_migration_is_reported_in_one_sentence(url: str, code: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "persistence.migrate", env={"DALSTON_DATABASE_URL": url}, stderr=subprocess.PIPE
    )
    _, messages = await process.communicate()
    assert process.returncode == code
    assert len(messages.decode().strip().splitlines()) == 1
