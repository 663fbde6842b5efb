"""A process that records sessions, to be killed: prints its address, then serves. Set up by the environment."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import Parrot, classify, serving  # type: ignore[import-not-found]

from persistence.config import PersistenceSettings
from persistence.service import open_persistence
from telemetry.deadline import Deadline


async def main() -> None:
    async with (
        open_persistence(PersistenceSettings(), classify, Deadline()) as persistence,
        serving(persistence, Parrot()) as address,
    ):
        print(address, flush=True)  # noqa: T201
        await asyncio.Event().wait()


asyncio.run(main())
