"""A recording server process that tests kill. It is configured by the environment and prints its address."""

import asyncio

from persistence.config import PersistenceSettings
from persistence.service import open_persistence
from telemetry.deadline import Deadline
from tests.integration.persistence.fake_transcriber import FakeTranscriber, classify, serving


async def main() -> None:
    async with (
        open_persistence(PersistenceSettings(), classify, Deadline()) as persistence,
        serving(persistence, FakeTranscriber()) as address,
    ):
        print(address, flush=True)  # noqa: T201
        await asyncio.Event().wait()


asyncio.run(main())
