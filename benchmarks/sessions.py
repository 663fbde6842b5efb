"""The time of a page of the list of sessions at a million rows, on a real Postgres.

    python benchmarks/sessions.py                       a million rows, 300 calls of each kind
    python benchmarks/sessions.py --rows 100000 --calls 100

Rows are generated in SQL over four tenants of 60, 30, 9 and 1 percent, in the order they began. `store` is the call of
the store, `rpc` the whole ListSessions over gRPC on loopback with the server's own interceptors, client and server in
one process; CPU is that of service, client and Postgres together. Nothing is cached outside Postgres. For
comparison: the exact count that `total` would need, and deep offsets. The plans are checked: the places of a page and
the count come from one index alone, in its order.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import grpc
import psutil
from provenance import commit, machine
from pydantic import SecretStr
from sqlalchemy import func, select, text
from sqlalchemy.dialects import postgresql

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "sdk")]

from dalston.v1 import session_pb2 as pb  # noqa: E402
from dalston.v1 import session_pb2_grpc  # noqa: E402

from domain.session import SessionFilter  # noqa: E402
from domain.tenancy import Caller, current_caller  # noqa: E402
from persistence.config import PersistenceSettings  # noqa: E402
from persistence.migrate import migrate  # noqa: E402
from persistence.postgres.cursor import Cursor  # noqa: E402
from persistence.postgres.database import Database, open_database  # noqa: E402
from persistence.postgres.sessions import BY_INDEX, SessionStore, count_query, page_query  # noqa: E402
from persistence.postgres.tables import realtime_sessions  # noqa: E402
from server.rpc.errors import ErrorInterceptor  # noqa: E402
from server.rpc.interceptor import Call, CallInterceptor, Context  # noqa: E402
from server.rpc.sessions import SessionServicer  # noqa: E402
from server.rpc.telemetry import TelemetryInterceptor  # noqa: E402
from stack.postgres import postgres  # noqa: E402
from telemetry.logs import configure_logging  # noqa: E402

TABLES = ("realtime_sessions", "transcripts", "transcription_jobs")
TENANTS = [UUID(int=n + 1) for n in range(4)]
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
SECONDS_APART = 30
TARGET_MS = 15.0

_FILL = """
INSERT INTO realtime_sessions (id, tenant_id, status, language, model, encoding, sample_rate, channels, store_audio,
    store_transcript, enhance_on_end, worker_id, started_at, ended_at, audio_uri, transcript_uri,
    audio_duration_seconds, utterance_count, word_count, client_ip)
SELECT gen_random_uuid(),
    ('00000000-0000-0000-0000-00000000000' || CASE WHEN n % 100 < 60 THEN 1 WHEN n % 100 < 90 THEN 2
        WHEN n % 100 < 99 THEN 3 ELSE 4 END)::uuid,
    CASE WHEN n > {rows} - 100 THEN 'active' WHEN n % 97 = 0 THEN 'error' WHEN n % 11 = 0 THEN 'interrupted'
        ELSE 'completed' END,
    'en', 'fast', 'pcm_s16le', 16000, 1, true, true, false, 'server-' || n % 8,
    '{begin}'::timestamptz + n * interval '{apart} seconds',
    CASE WHEN n > {rows} - 100 THEN NULL ELSE '{begin}'::timestamptz + (n + 9) * interval '{apart} seconds' END,
    's3://dalston/sessions/' || n || '/audio.wav', 's3://dalston/sessions/' || n || '/transcript.json',
    n % 3600, n % 400, n % 9000, '192.0.2.1'
FROM generate_series(1, {rows}) AS n
"""
_FILL_VERSIONS = (
    """
    INSERT INTO transcription_jobs (id, tenant_id, session_id, kind, status, model, language, version, started_at,
        ended_at, audio_seconds, done_seconds)
    SELECT gen_random_uuid(), tenant_id, id, 'enhance', 'completed', 'accurate', 'en', 2, ended_at, ended_at,
        audio_duration_seconds, audio_duration_seconds
    FROM realtime_sessions WHERE word_count % 2 = 0 AND ended_at IS NOT NULL
    """,
    """
    INSERT INTO transcripts (session_id, version, kind, job_id, model, language, audio_seconds, utterance_count,
        word_count, uri, verdict)
    SELECT session_id, version, 'enhanced', id, 'accurate', 'en', audio_seconds, 100, 1000, 's3://dalston/n', 'accepted'
    FROM transcription_jobs
    """,
    "UPDATE realtime_sessions AS s SET current_version = 2 FROM transcripts AS t WHERE t.session_id = s.id",
)
"""A completed job with an enhanced transcript, which is the current one, for every second session."""


class BenchCaller(CallInterceptor):
    """Makes every caller the tenant that its metadata names."""

    async def around(self, method: str, call: Call, context: Context) -> Any:
        tenant = dict(context.invocation_metadata() or ())["tenant"]
        current_caller.set(Caller(UUID(str(tenant))))
        return await call()


@dataclass(frozen=True)
class Case:
    """A kind of call."""

    name: str
    tenant: UUID
    wanted: SessionFilter = field(default_factory=SessionFilter)
    after: Cursor | None = None
    offset: int = 0

    def request(self) -> pb.ListSessionsRequest:
        request = pb.ListSessionsRequest(
            status=self.wanted.status or "", cursor=self.after.encode() if self.after else ""
        )
        if self.offset:
            request.offset = self.offset
        if self.wanted.since:
            request.since.FromDatetime(self.wanted.since)
        if self.wanted.until:
            request.until.FromDatetime(self.wanted.until)
        return request


async def cases(database: Database, rows: int) -> list[Case]:
    large, small = TENANTS[0], TENANTS[3]
    mine = int(rows * 0.6)
    end = BEGIN + timedelta(seconds=SECONDS_APART * rows)
    month = SessionFilter(since=end - timedelta(days=30), until=end)
    return [
        Case("first page", large),
        Case("first page, a tenant of 1 %", small),
        Case("first page, status=completed", large, SessionFilter(status="completed")),
        Case("first page, status=error", large, SessionFilter(status="error")),
        Case("first page, status=active", large, SessionFilter(status="active")),
        Case("first page, of the last 30 days", large, month),
        Case("cursor, depth 10,000", large, after=await cursor_at(database, large, 10_000)),
        Case("cursor, depth 10,000, status=completed", large, SessionFilter(status="completed"),
             await cursor_at(database, large, 10_000, "completed")),
        Case("cursor, depth 10,000 pages", large, after=await cursor_at(database, large, min(500_000, mine - 100))),
        Case("offset 10,000", large, offset=10_000),
        Case("offset 100,000", large, offset=100_000),
    ]  # fmt: skip


async def cursor_at(database: Database, tenant: UUID, depth: int, status: str | None = None) -> Cursor:
    t = realtime_sessions.c
    query = select(t.started_at, t.id).where(t.tenant_id == tenant)
    if status:
        query = query.where(t.status == status)
    async with database.transaction() as connection:
        query = query.order_by(t.started_at.desc(), t.id.desc()).offset(depth).limit(1)
        started_at, identifier = (await connection.execute(query)).one()
        return Cursor(started_at, UUID(str(identifier)))


@dataclass(frozen=True)
class Times:
    """The time of a kind of call, in milliseconds."""

    p50: float
    p95: float
    longest: float
    cpu: float
    """Of this process and Postgres together, per call: less affected by other load on the machine."""

    def __str__(self) -> str:
        return f"{self.p50:.1f} | {self.p95:.1f} | {self.longest:.1f} | {self.cpu:.1f}"


async def timed(calls: int, call: Callable[[], Awaitable[object]]) -> Times:
    """Times consecutive calls, after ten to warm up."""
    for _ in range(10):
        await call()
    found = []
    before = cpu_seconds()
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1000)
    cpu = (cpu_seconds() - before) * 1000 / calls
    return Times(statistics.median(found), statistics.quantiles(found, n=20)[-1], max(found), cpu)


def cpu_seconds() -> float:
    me = psutil.Process()
    times = [each.cpu_times() for each in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def explained(database: Database, query: Any, *, plan: str) -> None:
    compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    async with database.transaction() as connection:
        await connection.execute(BY_INDEX)
        lines = await connection.execute(text("EXPLAIN " + str(compiled).replace(":", r"\:")))
        found = "\n".join(line for (line,) in lines)
    outer = found.split("SubPlan")[0]
    assert plan in outer, found
    assert "Sort" not in outer, found
    assert "Seq Scan" not in found.replace("Seq Scan on workers", ""), found


@asynccontextmanager
async def stub(database: Database) -> AsyncIterator[session_pb2_grpc.SessionServiceStub]:
    # Listing needs nothing else.
    others: Any = None
    persistence: Any = SimpleNamespace(sessions=SessionStore(database), transcripts=None, partials=None)
    server = grpc.aio.server(interceptors=(TelemetryInterceptor(), ErrorInterceptor(), BenchCaller()))
    servicer = SessionServicer(persistence, others, others, others)
    session_pb2_grpc.add_SessionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield session_pb2_grpc.SessionServiceStub(channel)
    await server.stop(0)


async def fill(database: Database, rows: int) -> float:
    began = time.perf_counter()
    async with database._engine.begin() as connection:
        await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for tenant in TENANTS:
            await connection.execute(
                text("INSERT INTO tenants VALUES (:id, :name)"), {"id": tenant, "name": str(tenant)}
            )
        await connection.exec_driver_sql(_FILL.format(rows=rows, begin=BEGIN.isoformat(), apart=SECONDS_APART))
        for statement in _FILL_VERSIONS:
            await connection.exec_driver_sql(statement)
    return time.perf_counter() - began


async def maintain(database: Database, statement: str) -> None:
    async with database._engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.exec_driver_sql("SET statement_timeout = 0")
        await plain.exec_driver_sql(statement)


async def table(database: Database, arguments: argparse.Namespace) -> None:
    store = SessionStore(database)
    print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n")
    print("| call | store p50 ms | p95 | max | CPU | rpc p50 ms | p95 | max | CPU |")
    print("|---|---|---|---|---|---|---|---|---|")
    async with stub(database) as sessions:
        for case in await cases(database, arguments.rows):
            cursor = case.after.encode() if case.after else None
            metadata = (("tenant", str(case.tenant)),)
            in_store = await timed(
                arguments.calls,
                lambda case=case, cursor=cursor: store.list(
                    case.tenant, case.wanted, offset=case.offset, cursor=cursor
                ),
            )
            request = case.request()
            in_rpc = await timed(
                arguments.calls,
                lambda request=request, metadata=metadata: sessions.ListSessions(request, metadata=metadata),
            )
            print(f"| {case.name} | {in_store} | {in_rpc} |")
    await compared(database, arguments.calls)


async def compared(database: Database, calls: int) -> None:
    """The counts alone: the bounded one, and the exact one that it replaces."""
    t = realtime_sessions.c
    exact = select(func.count()).where(t.tenant_id == TENANTS[0], t.deleted_at.is_(None))
    for name, query in (("bounded", count_query(TENANTS[0], SessionFilter())), ("exact", exact)):

        async def count(query: Any = query) -> None:
            async with database.transaction() as connection:
                await connection.execute(BY_INDEX)
                await connection.execute(query)

        print(f"| (the count alone, {name}) | {await timed(min(calls, 50), count)} | | | | |")


async def check_plans(database: Database, rows: int) -> None:
    for case in await cases(database, rows):
        index = "ix_realtime_sessions_list_status" if case.wanted.status else "ix_realtime_sessions_list"
        page = page_query(case.tenant, case.wanted, 50, 0, case.after)
        await explained(database, page, plan=f"Index Only Scan using {index} ")
        await explained(database, count_query(case.tenant, case.wanted), plan=f"Index Only Scan using {index}")


async def run(arguments: argparse.Namespace, url: str) -> None:
    settings = PersistenceSettings(database_url=SecretStr(url), database_deadline_seconds=600)
    async with open_database(settings) as database:
        seconds = await fill(database, arguments.rows)
        print(f"{machine()}; commit {commit()}; {arguments.rows:,} rows in {seconds:.0f} s; page of 50\n")
        await maintain(database, "ALTER TABLE realtime_sessions SET (autovacuum_enabled = off)")
        for name in TABLES:
            await maintain(database, f"ANALYZE {name}")
        print("Without any VACUUM, the worst case: the visibility of every counted row is looked up.\n")
        await table(database, arguments)
        for name in TABLES:
            await maintain(database, f"VACUUM ANALYZE {name}")
        await check_plans(database, arguments.rows)
        print("\nVacuumed, which Postgres does when a hundredth of the table is new.\n")
        await table(database, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=300)
    arguments = parser.parse_args()
    configure_logging("WARNING", "text")
    with tempfile.TemporaryDirectory() as name, postgres(Path(name) / "postgres") as database:
        migrate(database.url)
        asyncio.run(run(arguments, database.url))


if __name__ == "__main__":
    main()
