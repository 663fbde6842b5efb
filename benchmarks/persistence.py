"""What recording costs: the same streams with storage on and off, on a real Postgres and a real S3 server.

    python benchmarks/persistence.py                          5, 10 and 20 streams of a minute
    python benchmarks/persistence.py --streams 20,40 --seconds 120
    python benchmarks/persistence.py --long                   one session of 4 hours, forty times as fast

    python benchmarks/persistence.py --speech --streams 2     the real models, on the sample recording

Without --speech the server is the real one but for its models, whose work would hide what is measured: a detector that
goes by the clock and a recogniser that names the bytes it was given (tests/faults/fault_server.py). `off` sends the
same audio and stores nothing. A final's latency runs from when the last byte of its utterance was sent to its arrival,
the silence that ends it included. Postgres' transactions are its own count, S3's requests are counted by a proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile
from provenance import commit, machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from persistence.migrate import migrate  # noqa: E402
from stack.postgres import postgres  # noqa: E402
from stack.seaweedfs import seaweedfs  # noqa: E402
from tests.faults.client import PatternClient  # noqa: E402
from tests.faults.http_proxy import HttpProxy  # noqa: E402
from tests.faults.pattern import BYTES_PER_SECOND, audio  # noqa: E402
from tests.faults.servers import REAL, SCRIPTED, ServerProcess, a_server  # noqa: E402
from tests.faults.world import Bucket, World, a_world  # noqa: E402

MIB = 1 << 20
STORED = ("on", "off")


@dataclass
class Run:
    """What one load did to the server."""

    streams: int
    stored: str
    cpu_percent: float
    """Of one core, per stream."""
    p50_ms: float
    p95_ms: float
    memory_mib: float
    """Resident, per session, above the server with none."""
    statements_per_second: float
    requests_per_hour: float
    """Of S3, per session and hour of audio, the end of the session included."""
    operations: Counter[str]


class Meter:
    """The server's CPU and memory, Postgres' transactions, S3's requests."""

    def __init__(self, server: ServerProcess, world: World, s3: HttpProxy) -> None:
        self._process = psutil.Process(server.pid)
        self._world = world
        self._s3 = s3

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        return int(self._process.memory_info().rss)

    async def statements(self) -> int:
        async with self._world.postgres() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
            return int(
                await connection.fetchval(
                    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
                )
            )

    def requests(self) -> Counter[str]:
        return Counter(self._s3.requests)


@asynccontextmanager
async def a_service(
    world: World, flush_seconds: float, speech: bool = False
) -> AsyncIterator[tuple[ServerProcess, Meter]]:
    """A server with the product's own settings, not the tests'."""
    async with HttpProxy(*world.bucket.address) as s3:
        environment = world.environment(
            world.new_spool(),
            s3_port=s3.port,
            flush_seconds=flush_seconds,
            lease_seconds=15,
            lease_renewal_seconds=5,
            reap_seconds=5,
            sweep_seconds=300,
            max_session_seconds=86_400,
            cache_dir=os.environ.get("DALSTON_CACHE_DIR") or ROOT / ".dalston" / "cache",
        )
        program = REAL if speech else SCRIPTED
        async with a_server(environment, world.folder / "server.log", program=program) as server:
            yield server, Meter(server, world, s3)


async def measure(world: World, count: int, stored: str, arguments: argparse.Namespace) -> Run:
    """`count` streams in real time."""
    seconds: float = arguments.seconds
    source = speech() if arguments.speech else audio
    async with a_service(world, arguments.flush, arguments.speech) as (server, meter), AsyncExitStack() as stack:
        await _warm_up(server, source)
        on = stored == "on"
        clients = [
            PatternClient(server.channel(), tag, store_audio=on, store_transcript=on, source=source)
            for tag in range(1, count + 1)
        ]
        for client in clients:
            stack.push_async_callback(client.close)
        memory = meter.memory()
        requests = meter.requests()
        await asyncio.gather(*(client.begin() for client in clients))
        cpu, statements = meter.cpu_seconds(), await meter.statements()
        # Streams do not start together in life.
        await asyncio.gather(*(_stream(client, number / count, seconds) for number, client in enumerate(clients)))
        cpu, statements = meter.cpu_seconds() - cpu, await meter.statements() - statements
        memory = meter.memory() - memory
        await asyncio.gather(*(client.finish(60) for client in clients))
        await world.settled(60)
        operations = meter.requests() - requests
        times = [1000 * time for client in clients for time in client.final_times]
        p50, p95 = np.percentile(times, [50, 95])
        return Run(
            count,
            stored,
            100 * cpu / seconds / count,
            p50,
            p95,
            memory / MIB / count,
            statements / seconds,
            operations.total() / count / (seconds / 3600),
            operations,
        )


async def _stream(client: PatternClient, delay: float, seconds: float) -> None:
    await asyncio.sleep(delay)
    await client.stream(seconds - delay)


def speech() -> Callable[[int, int, int], bytes]:
    """The sample recording over and over, begun at another place for every tag."""
    samples, _ = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16")
    data = samples.tobytes()

    def source(tag: int, start: int, size: int) -> bytes:
        first = (start + tag * 123_456) % len(data)
        return (data[first:] + data * (size // len(data) + 1))[:size]

    return source


async def _warm_up(server: ServerProcess, source: Callable[[int, int, int], bytes] = audio) -> None:
    for tag in range(3):
        client = PatternClient(server.channel(), tag, source=source)
        await client.begin()
        await client.send(5 * BYTES_PER_SECOND)
        await client.finish(60)
        await client.close()


async def long_session(world: World, hours: float, speed: float, flush_seconds: float) -> list[str]:
    """Memory and S3 requests of one session of hours; both its time and its flushes run `speed` times as fast."""
    lines = [f"| {'audio':>8} | server MiB | spool MiB |", "|---|---|---|"]
    async with a_service(world, flush_seconds / speed) as (server, meter), AsyncExitStack() as stack:
        await _warm_up(server)
        client = PatternClient(server.channel(), 1, speed=speed)
        stack.push_async_callback(client.close)
        requests = meter.requests()
        first = meter.memory()
        await client.begin()
        for step in range(1, 9):
            await client.stream(hours * 3600 / speed / 8)
            spooled = sum(path.stat().st_size for path in world.folder.rglob("audio.0*"))
            lines.append(
                f"| {step * hours / 8:6.1f} h | {meter.memory() / MIB:.0f} (+{(meter.memory() - first) / MIB:.1f}) "
                f"| {spooled / MIB:.1f} |"
            )
        await client.finish(120)
        await world.settled(120)
        operations = meter.requests() - requests
        lines += ["", f"S3 requests per session-hour: {operations.total() / hours:.0f} ({_shown(operations, hours)})"]
    return lines


def _shown(operations: Counter[str], hours: float) -> str:
    return ", ".join(f"{name} {number / hours:.1f}" for name, number in operations.most_common())


HEADER = ("streams", "stored", "CPU % of a core per stream", "p50 ms", "p95 ms", "MiB per session", "transactions/s")


def row(run: Run) -> str:
    cells = (
        run.streams,
        run.stored,
        f"{run.cpu_percent:.2f}",
        f"{run.p50_ms:.1f}",
        f"{run.p95_ms:.1f}",
        f"{run.memory_mib:.2f}",
        f"{run.statements_per_second:.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


async def run(arguments: argparse.Namespace, database_url: str, bucket: Bucket, folder: Path) -> None:
    print(f"{machine()}; commit {commit()}; flush {arguments.flush:g} s\n")
    async with a_world(database_url, bucket, folder) as world:
        if arguments.long:
            print("\n".join(await long_session(world, arguments.hours, arguments.speed, arguments.flush)))
            return
        print(f"{arguments.seconds:g} s a stream\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
        for count in arguments.streams:
            for stored in STORED:
                result = await measure(world, count, stored, arguments)
                print(row(result), flush=True)
                if stored == "on":
                    last = result
        print(
            f"\nS3 requests per session-hour, sessions of {arguments.seconds:g} s: {last.requests_per_hour:.0f}"
            f" ({_shown(last.operations, last.streams * arguments.seconds / 3600)})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[5, 10, 20])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--flush", type=float, default=10, help="DALSTON_FLUSH_SECONDS")
    parser.add_argument("--speech", action="store_true", help="the real models, on the sample recording")
    parser.add_argument("--long", action="store_true", help="one long session instead")
    parser.add_argument("--hours", type=float, default=4)
    parser.add_argument("--speed", type=float, default=40)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        postgres(Path(name) / "postgres") as database,
        seaweedfs(Path(name) / "s3") as s3,
    ):
        migrate(database.url)
        bucket = Bucket(s3.endpoint_url, s3.access_key_id, s3.secret_access_key, f"bench-{uuid.uuid4().hex[:8]}")
        asyncio.run(run(arguments, database.url, bucket, Path(name)))


if __name__ == "__main__":
    main()
