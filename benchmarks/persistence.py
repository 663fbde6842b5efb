"""The cost of recording: the same streams with storage on and off, on a real Postgres and a real S3 server.

    python benchmarks/persistence.py                                     20 streams, 4 times on and 4 times off python
    benchmarks/persistence.py --streams 5,20,40 --repeats 2       whether it grows with the streams python
    benchmarks/persistence.py --speech --streams 4 --seconds 60   the real models, on the sample recording python
    benchmarks/persistence.py --long                              memory: hours of sessions, faster than real time

Without --speech the server has scripted models, because real ones would dominate the measurement: a detector that
follows the clock and a recogniser that returns the range of bytes that it received (tests/faults/fault_server.py).
`off` sends the same audio and stores nothing. Postgres counts its transactions, and a proxy the requests to S3.

The benchmark is for machines with other load. On and off take turns in one server process, in alternating order, and
CPU time is compared; the spread over the pairs shows the accuracy of the figures. Clients send every 100 ms, so that an
utterance ends at the same position within a message in every run: the latency of a final, from sending the last byte of
its utterance to its arrival, with the silence that ends it, depends on the server and not on the position.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
from tests.faults.scenario import Bucket, Scenario, a_scenario  # noqa: E402
from tests.faults.servers import REAL, SCRIPTED, ServerProcess, a_server  # noqa: E402

MIB = 1 << 20
MESSAGE_SECONDS = 0.1
MESSAGE_BYTES = int(MESSAGE_SECONDS * BYTES_PER_SECOND)
SPREAD_SECONDS = 1.6
"""Streams begin at irregular times within the length of one scripted utterance."""
GOLDEN = 0.618034

Source = Callable[[int, int, int], bytes]


@dataclass(frozen=True)
class Run:
    """The effect of one load on the server."""

    streams: int
    seconds: float
    cpu_seconds: float
    """While the streams ran, without their beginnings and ends."""
    ends_cpu_seconds: float
    """For their beginnings and ends."""
    final_ms: tuple[float, ...]
    memory_bytes: int
    """The peak of resident memory, above its value before the first stream."""
    transactions: int
    operations: Counter[str]

    @property
    def cpu_percent(self) -> float:
        """Of one core, per stream."""
        return 100 * self.cpu_seconds / self.seconds / self.streams

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.final_ms, 95))

    @property
    def memory_mib(self) -> float:
        """Per session."""
        return self.memory_bytes / MIB / self.streams


class Meter:
    """The server's CPU and memory, Postgres' transactions, S3's requests."""

    def __init__(self, server: ServerProcess, scenario: Scenario, s3: HttpProxy) -> None:
        self._process = psutil.Process(server.pid)
        self._scenario = scenario
        self._s3 = s3

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        return int(self._process.memory_info().rss)

    async def highest_memory(self, work: Awaitable[object]) -> int:
        """The peak during some work."""
        task = asyncio.ensure_future(work)
        highest = self.memory()
        while not task.done():
            await asyncio.wait({task}, timeout=0.1)
            highest = max(highest, self.memory())
        await task
        return highest

    async def transactions(self) -> int:
        async with self._scenario.postgres() as connection:
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
    scenario: Scenario, flush_seconds: float, speech: bool = False
) -> AsyncIterator[tuple[ServerProcess, Meter]]:
    """A server with the product's own settings, not the tests'."""
    async with HttpProxy(*scenario.bucket.address) as s3:
        environment = scenario.environment(
            scenario.new_spool(),
            s3_port=s3.port,
            flush_seconds=flush_seconds,
            s3_deadline_seconds=30,
            lease_seconds=15,
            lease_renewal_seconds=5,
            reap_seconds=5,
            sweep_seconds=300,
            max_session_seconds=86_400,
            cache_dir=os.environ.get("DALSTON_CACHE_DIR") or ROOT / ".dalston" / "cache",
        )
        program = REAL if speech else SCRIPTED
        async with a_server(environment, scenario.folder / "server.log", program=program) as server:
            yield server, Meter(server, scenario, s3)


class Bench:
    """Loads on one server."""

    def __init__(self, scenario: Scenario, server: ServerProcess, meter: Meter, source: Source = audio) -> None:
        self._scenario = scenario
        self._server = server
        self._meter = meter
        self._source = source

    async def run(self, count: int, seconds: float, *, stored: bool, speed: float = 1.0) -> Run:
        """`count` streams side by side, each of `seconds` of the wall clock."""
        async with AsyncExitStack() as stack:
            clients = [self._client(tag, stored) for tag in range(1, count + 1)]
            for client in clients:
                stack.push_async_callback(client.close)
            meter, before, requests = self._meter, self._meter.memory(), self._meter.requests()
            begun = meter.cpu_seconds()
            await asyncio.gather(*(client.begin() for client in clients))
            cpu, transactions = meter.cpu_seconds(), await meter.transactions()
            streams = (_stream(client, number, seconds, speed) for number, client in enumerate(clients))
            highest = await meter.highest_memory(asyncio.gather(*streams))
            streamed, transactions = meter.cpu_seconds(), await meter.transactions() - transactions
            # What a client's end brings forth waits for the slowest stream to come to its own.
            times = tuple(1000 * time for client in clients for time in client.final_times)
            await asyncio.gather(*(client.finish(120) for client in clients))
            await self._scenario.settled(120)
            return Run(
                count,
                seconds,
                streamed - cpu,
                meter.cpu_seconds() - streamed + cpu - begun,
                times,
                highest - before,
                transactions,
                meter.requests() - requests,
            )

    def _client(self, tag: int, stored: bool) -> PatternClient:
        channel = self._server.channel()
        return PatternClient(channel, tag, store_audio=stored, store_transcript=stored, source=self._source)


async def _stream(client: PatternClient, number: int, seconds: float, speed: float) -> None:
    clock = asyncio.get_running_loop().time
    begin = clock() + number * GOLDEN % 1 * SPREAD_SECONDS
    for turn in range(int(seconds / MESSAGE_SECONDS)):
        await asyncio.sleep(max(0.0, begin + turn * MESSAGE_SECONDS - clock()))
        if not await client.send(int(MESSAGE_BYTES * speed)):
            raise RuntimeError(f"a stream broke: {client.reason}")


def speech() -> Source:
    """The sample recording over and over, begun at another place for every tag."""
    samples, _ = soundfile.read(ROOT / "samples" / "sense-and-sensibility.flac", dtype="int16")
    data = samples.tobytes()

    def source(tag: int, start: int, size: int) -> bytes:
        first = (start + tag * 123_456) % len(data)
        return (data[first:] + data * (size // len(data) + 1))[:size]

    return source


async def compare(bench: Bench, count: int, seconds: float, repeats: int) -> tuple[list[Run], list[Run]]:
    """Runs with storage on and with storage off, in turns; the first of each came first or second in turns, too."""
    # What a process does once: connections, imports, the memory that its allocator keeps.
    for stored in (True, False):
        await bench.run(count, 5, stored=stored)
    runs: dict[bool, list[Run]] = {True: [], False: []}
    for repeat in range(repeats):
        for stored in (True, False) if repeat % 2 else (False, True):
            runs[stored].append(await bench.run(count, seconds, stored=stored))
    return runs[True], runs[False]


def table(on: Sequence[Run], off: Sequence[Run]) -> list[str]:
    """Median, and the range over the runs; for the difference over the pairs."""
    lines = [f"| {on[0].streams} streams | storage on | storage off | difference |", "|---|---|---|---|"]

    def line(name: str, digits: int, figure: Callable[[Run], float]) -> None:
        pairs = [(figure(one), figure(other)) for one, other in zip(on, off, strict=True)]
        cells = [[one for one, _ in pairs], [other for _, other in pairs], [one - other for one, other in pairs]]
        lines.append(f"| {name} | {' | '.join(_spread(cell, digits) for cell in cells)} |")

    line("CPU, % of a core per stream", 3, lambda run: run.cpu_percent)
    line("CPU of a beginning and an end, ms", 1, lambda run: 1000 * run.ends_cpu_seconds / run.streams)
    line("p95 of finals, ms", 1, lambda run: run.p95_ms)
    line("memory at its highest, MiB per session", 2, lambda run: run.memory_mib)
    line("transactions/s", 2, lambda run: run.transactions / run.seconds)
    pooled = [np.percentile([time for run in runs for time in run.final_ms], [50, 95]) for runs in (on, off)]
    share = sum(run.cpu_seconds for run in on) / sum(run.cpu_seconds for run in off) - 1
    lines += ["", f"CPU over all runs: {100 * share:+.1f} %."]
    lines.append(
        f"Finals of all runs, {sum(len(run.final_ms) for run in on)} and {sum(len(run.final_ms) for run in off)}: "
        f"p50 {pooled[0][0]:.1f} and {pooled[1][0]:.1f} ms, "
        f"p95 {pooled[0][1]:.1f} and {pooled[1][1]:.1f} ms ({pooled[0][1] - pooled[1][1]:+.1f})."
    )
    return [*lines, _requests(on, 1.0), ""]


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _requests(runs: Sequence[Run], speed: float) -> str:
    operations = sum((run.operations for run in runs), Counter[str]())
    hours = sum(run.streams * run.seconds for run in runs) * speed / 3600
    each = ", ".join(f"{name} {number / hours:.1f}" for name, number in operations.most_common())
    return (
        f"S3 requests per session-hour, sessions of {runs[0].seconds * speed / 60:g} minutes: "
        f"{operations.total() / hours:.0f} ({each})"
    )


async def memory(scenario: Scenario, arguments: argparse.Namespace) -> AsyncIterator[str]:
    """What long sessions hold. Their time and their flushes run `speed` times as fast as in life."""
    speed: float = arguments.speed
    async with a_service(scenario, arguments.flush / speed) as (server, meter):
        bench = Bench(scenario, server, meter)
        began = meter.memory()
        # The first session with a few parts brings what a process needs once, whatever the number of its sessions.
        await bench.run(1, 900 / speed, stored=True, speed=speed)
        warm = meter.memory()
        yield f"A fresh server: {began / MIB:.1f} MiB; after its first session of 15 minutes {warm / MIB:.1f} MiB."
        long = asyncio.create_task(bench.run(1, arguments.hours * 3600 / speed, stored=True, speed=speed))
        yield f"\n| one session, {speed:g} times as fast | server MiB |\n|---|---|"
        for step in range(1, 9):
            await asyncio.sleep(arguments.hours * 3600 / speed / 8 - 0.2)
            now = meter.memory()
            yield f"| {step * arguments.hours / 8:.1f} h | {now / MIB:.1f} ({(now - warm) / MIB:+.1f}) |"
        run = await long
        yield f"\nAt its highest {run.memory_mib:+.1f} MiB. {_requests([run], speed)}\n"
        for count in arguments.sessions:
            # As much audio in a second whatever their number: a server that falls behind would be measured instead.
            pace = speed / count
            run = await bench.run(count, 900 / pace, stored=True, speed=pace)
            yield f"{count} sessions of 15 minutes, {pace:g} times as fast: {run.memory_mib:+.2f} MiB each."
        yield f"Afterwards {meter.memory() / MIB:.1f} MiB."


async def run(arguments: argparse.Namespace, database_url: str, bucket: Bucket, folder: Path) -> None:
    print(f"{machine()}; commit {commit()}; flush {arguments.flush:g} s\n", flush=True)
    async with a_scenario(database_url, bucket, folder) as scenario:
        if arguments.long:
            async for line in memory(scenario, arguments):
                print(line, flush=True)
            return
        async with a_service(scenario, arguments.flush, arguments.speech) as (server, meter):
            bench = Bench(scenario, server, meter, speech() if arguments.speech else audio)
            for count in arguments.streams:
                on, off = await compare(bench, count, arguments.seconds, arguments.repeats)
                print("\n".join(table(on, off)), flush=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=_numbers, default=[20])
    parser.add_argument("--seconds", type=float, default=30, help="of a run; there are 2 x --repeats of them")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--flush", type=float, default=10, help="DALSTON_FLUSH_SECONDS")
    parser.add_argument("--speech", action="store_true", help="the real models, on the sample recording")
    parser.add_argument("--long", action="store_true", help="memory over long sessions instead")
    parser.add_argument("--hours", type=float, default=4, help="of the long session")
    parser.add_argument("--speed", type=float, default=60, help="of the long sessions")
    parser.add_argument("--sessions", type=_numbers, default=[1, 4], help="side by side, after the long one")
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
