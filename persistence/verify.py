"""Compares rows, objects, unfinished uploads and spools: `python -m persistence.verify [--repair]`.

Prints what disagrees, a line each, and exits 1 if anything does. With `--repair` it mends what can be mended without
losing anything, and exits 1 if something is left.
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
from persistence.recovery.checks import Finding, Verifier
from persistence.recovery.repair import Repairer
from persistence.s3.objects import ObjectStore, open_objects
from telemetry.logs import configure_logging


@dataclass(frozen=True, slots=True)
class Result:
    """What was found, and what was done about it."""

    left: tuple[Finding, ...]
    repaired: tuple[Finding, ...]
    ended: int
    """Sessions that no server had and that were ended."""
    checked: dict[str, int]
    """How many rows, objects, uploads and spools were looked at."""


async def verify(settings: PersistenceSettings, *, repair: bool = False) -> Result:
    """Compares everything, and mends it if asked to.

    Where a server's lease has run out a repair waits first, as long as a lease lasts: that server may live.

    Raises:
        StorageUnavailable: Postgres or S3 does not do its part.
        LeaseLost: this process stood still while it repaired, and was taken for dead.
    """
    left: list[Finding] = []
    repaired: list[Finding] = []
    ended = 0
    async with open_database(settings) as database, open_objects(settings) as objects:
        spool_dir = settings.spool_dir if settings.spool_dir.is_dir() else None
        verifier = Verifier(database, objects, spool_dir, delete_age_seconds=settings.delete_age_seconds)
        async with AsyncExitStack() as stack:
            repairer = await stack.enter_async_context(_mending(settings, database, objects)) if repair else None
            if repairer is not None:
                ended = await repairer.take_over()
            async for finding in verifier.findings():
                is_repaired = repairer is not None and await repairer.repair(finding)
                (repaired if is_repaired else left).append(finding)
    return Result(tuple(left), tuple(repaired), ended, verifier.checked)


@asynccontextmanager
async def _mending(settings: PersistenceSettings, database: Database, objects: ObjectStore) -> AsyncIterator[Repairer]:
    """A mender with a lease like a server's: however this process ends, what it has begun is another's soon."""
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
        # The failure of what it did is to be heard of, not that of giving the lease back: that runs out by itself.
        with suppress(StorageUnavailable):
            await lease.end(has_left_work=False)


def main() -> int:
    """Verifies the configured stores; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m persistence.verify", description="Compares what is stored.")
    parser.add_argument("--repair", action="store_true", help="mend what can be mended without losing anything")
    repair = parser.parse_args().repair
    configure_logging()
    try:
        result = asyncio.run(verify(PersistenceSettings(), repair=repair))
    except (StorageUnavailable, ValidationError) as error:
        print(f"cannot verify: {error}", file=sys.stderr)  # noqa: T201  a command speaks to a person
        return 2
    except LeaseLost:
        print("cut short: this command stood still and lost its lease. Run it again", file=sys.stderr)  # noqa: T201
        return 2
    for finding in result.left:
        print(finding)  # noqa: T201
    for finding in result.repaired:
        print(f"{finding} (mended)")  # noqa: T201
    if result.ended:
        print(f"{result.ended} sessions that no server had are ended")  # noqa: T201
    looked_at = ", ".join(f"{count} {what}" for what, count in result.checked.items())
    print(f"{looked_at}: {len(result.left)} disagree")  # noqa: T201
    return 1 if result.left else 0


if __name__ == "__main__":
    sys.exit(main())
