"""A full disk is a fault like any other: the client gets a reason, and no received audio is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy, always
from tests.faults.load import finish_all, stream_all, streams
from tests.faults.scenario import Expected, Scenario
from tests.faults.servers import a_server

MIB = 1 << 20


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system with so many bytes for one test."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")
async def test_a_full_disk_ends_or_degrades_streams_and_loses_nothing(scenario: Scenario, s3_http: HttpProxy) -> None:
    with small_disk(scenario.folder / "small", 24 * MIB) as spool:
        environment = scenario.environment(spool, s3_port=s3_http.port, spool_bytes=1 << 40)
        async with a_server(environment, scenario.folder / "server.log") as server, streams(server, 8) as clients:
            s3_http.rule = always(Fate.REFUSE)
            async with asyncio.timeout(60):
                while _free(spool) > 0 and all(client.is_open for client in clients):
                    await stream_all(clients, 0.5)
            await stream_all(clients, 2)
            FIGURES.add("disks filled")
            for client in clients:
                assert not client.store_audio or client.warnings or not client.is_open, (
                    "the disk is full and the client was not warned"
                )
            assert {client.reason for client in clients if not client.is_open} <= {"UNAVAILABLE"}
            s3_http.restore()
            alive = [client for client in clients if client.is_open]
            await finish_all(alive)
            expected = [Expected.of(client) for client in clients]
            await scenario.settled(60)
            await scenario.compare(expected, statuses=("completed", "error", "interrupted"))
            # There is room again, and the server uses it.
            async with streams(server, 3, first_tag=40) as later:
                await stream_all(later, 1)
                again = await finish_all(later)
            await scenario.settled()
            await scenario.compare(again, statuses=("completed",))
            await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_the_disk_budget_is_kept_and_reported(scenario: Scenario, s3_http: HttpProxy) -> None:
    budget = 16 * MIB
    spool = scenario.new_spool()
    environment = scenario.environment(spool, s3_port=s3_http.port, spool_bytes=budget)
    async with a_server(environment, scenario.folder / "server.log") as server, streams(server, 8) as clients:
        s3_http.rule = always(Fate.REFUSE)
        most = 0
        for _ in range(30):
            await stream_all(clients, 0.5)
            most = max(most, _used(spool))
        FIGURES.note(f"a budget of {budget / MIB:.0f} MiB, S3 away: the spool held {most / MIB:.1f} MiB at most")
        assert most < budget + 2 * MIB
        for client in clients:
            assert not client.store_audio or client.warnings or not client.is_open, (
                "the budget is spent and the client was not warned"
            )
        s3_http.restore()
        await finish_all([client for client in clients if client.is_open])
        expected = [Expected.of(client) for client in clients]
        await scenario.settled(60)
        await scenario.compare(expected, statuses=("completed", "error", "interrupted"))
        await scenario.until_nothing_is_left(spool)


def _free(folder: Path) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def _used(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
