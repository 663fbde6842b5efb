"""Compares rows, objects, unfinished uploads and spools: `python -m persistence.verify [--repair]`.

Prints a line for each finding, and exits 1 if there are any. With `--repair` it repairs what can be repaired without
loss, and exits 1 if findings remain.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from pydantic import ValidationError

from domain.errors import StorageUnavailable
from persistence.config import PersistenceSettings
from persistence.errors import LeaseLost
from persistence.postgres.database import Database, open_database
from persistence.postgres.lease import Lease
from persistence.recovery.checks import Verifier
from persistence.recovery.finding import Finding
from persistence.recovery.repair import Repairer
from persistence.s3.objects import ObjectStore, open_objects
from telemetry.logs import configure_logging


@dataclass(frozen=True, slots=True)
class Result:
    """The findings, and the repairs."""

    remaining: tuple[Finding, ...]
    repaired: tuple[Finding, ...]
    ended: int
    """Sessions without a server that were ended."""
    checked: dict[str, int]
    """The numbers of compared rows, objects, uploads and spools."""


async def verify(settings: PersistenceSettings, *, repair: bool = False) -> Result:
    """Compares everything, and repairs it if requested.

    If the lease of a server has expired, a repair first waits for the duration of a lease: that server may be alive.

    Raises:
        StorageUnavailable: Postgres or S3 is unavailable.
        LeaseLost: this process was suspended during the repair, and was considered dead.
    """
    remaining: list[Finding] = []
    repaired: list[Finding] = []
    ended = 0
    async with open_database(settings) as database, open_objects(settings) as objects:
        spool_dir = settings.spool_dir if settings.spool_dir.is_dir() else None
        verifier = Verifier(database, objects, spool_dir, delete_age_seconds=settings.delete_age_seconds)
        async with AsyncExitStack() as stack:
            repairer = await stack.enter_async_context(_repairer(settings, database, objects)) if repair else None
            if repairer is not None:
                ended = await repairer.take_over()
            async for finding in verifier.findings():
                is_repaired = repairer is not None and await repairer.repair(finding)
                (repaired if is_repaired else remaining).append(finding)
    return Result(tuple(remaining), tuple(repaired), ended, verifier.checked)


@asynccontextmanager
async def _repairer(settings: PersistenceSettings, database: Database, objects: ObjectStore) -> AsyncIterator[Repairer]:
    """A repairer with a lease like a server's: however this process ends, another soon completes its work."""
    worker_id = f"verify-{uuid4().hex[:12]}"
    lease = Lease(database, worker_id, settings.lease_seconds, settings.lease_renewal_seconds)
    await lease.register()
    objects.check = lease.check
    renewing = asyncio.create_task(lease.run(), name="lease")
    try:
        yield Repairer(database, objects, lease, worker_id, orphan_age_seconds=settings.orphan_age_seconds)
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})
        # The error of the repair must not be hidden by one of ending the lease, which expires by itself.
        with suppress(StorageUnavailable):
            await lease.end(has_left_work=False)


def main() -> int:
    """Verifies the configured stores; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m persistence.verify", description="Compares what is stored.")
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired without loss")
    repair = parser.parse_args().repair
    configure_logging()
    try:
        result = asyncio.run(verify(PersistenceSettings(), repair=repair))
    except (StorageUnavailable, ValidationError) as error:
        print(f"cannot verify: {error}", file=sys.stderr)  # noqa: T201  output of a command
        return 2
    except LeaseLost:
        print("interrupted: this command was suspended and lost its lease. Run it again", file=sys.stderr)  # noqa: T201
        return 2
    for finding in result.remaining:
        print(finding)  # noqa: T201
    for finding in result.repaired:
        print(f"{finding} (repaired)")  # noqa: T201
    if result.ended:
        print(f"{result.ended} sessions without a server were ended")  # noqa: T201
    looked_at = ", ".join(f"{count} {what}" for what, count in result.checked.items())
    print(f"{looked_at}: {len(result.remaining)} disagree")  # noqa: T201
    return 1 if result.remaining else 0


if __name__ == "__main__":
    sys.exit(main())
