"""Partials for those who watch a session, between two processes on a real Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from domain.session_id import new_uuid7, parse_session_id
from persistence.background import running
from persistence.postgres import partials as module
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.database import Database
from persistence.postgres.partials import ObservedPartial, PartialExchange, PartialFeed


class CountingExchange(PartialExchange):
    """One process, which counts the sessions that it was asked for."""

    named: int = 0

    def _on_names(self, payload: str) -> None:
        super()._on_names(payload)
        self.named += 1


@asynccontextmanager
async def process(database: Database) -> AsyncIterator[CountingExchange]:
    exchange = CountingExchange(database)
    notifier = ChangeNotifier(database, {**exchange.channels, module.OBSERVED: exchange._on_names})
    with notifier.watching(uuid.uuid4()) as listens:
        async with running(notifier.run(), "notifier"), running(exchange.run(), "exchange"):
            await listens.wait()
            yield exchange


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def taken(feed: PartialFeed, woken: asyncio.Event, index: int) -> ObservedPartial:
    async with asyncio.timeout(30):
        while (partial := feed.take(index)) is None:
            await woken.wait()
            woken.clear()
    return partial


def published() -> float:
    return float(module._published._value.get())


async def test_partials_arrive_in_another_process_while_it_watches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OBSERVED_SECONDS", 2.0)
    monkeypatch.setattr(module, "_NAME_SECONDS", 0.5)
    session, other = new_uuid7(), new_uuid7()
    async with process(database) as owner, process(database) as watcher:
        before = published()
        owner.publish(session, ObservedPartial(0, "nobody watches", 0.0, 1.0))
        await owner.send()
        assert published() == before

        woken = asyncio.Event()
        with watcher.watching(session, woken.set) as feed:
            await until(lambda: owner.named > 0)
            owner.publish(other, ObservedPartial(0, "another session", 0.0, 1.0))
            owner.publish(session, ObservedPartial(3, "replaced before it is sent", 0.0, 1.0))
            owner.publish(
                session, spoken := ObservedPartial(3, "He answered: \u201cnot \\ at all\u201d,\u8a9e", 0.25, 1.5)
            )
            assert await taken(feed, woken, 3) == spoken

        def is_over() -> bool:
            return session not in owner._observed

        await until(is_over)
        count = published()
        owner.publish(session, spoken)
        await owner.send()
        assert published() == count


async def test_a_recorded_session_publishes_its_partials_with_the_number_of_its_finals(
    harness: Any, client_of: Any
) -> None:
    harness.fake_transcriber.partials = True
    exchange = harness.persistence.partials
    async with harness.channel() as channel:
        client, silent = client_of(channel), client_of(channel)
        session_id = parse_session_id(await client.begin(store_transcript=True))
        unstored_id = parse_session_id(await silent.begin())
        woken = asyncio.Event()
        with exchange.watching(session_id, woken.set) as feed, exchange.watching(unstored_id, woken.set) as unstored:
            await until(lambda: {session_id, unstored_id} <= exchange._observed.keys())
            await silent.send(bytes(3200))
            await client.send(bytes(3200))
            assert await taken(feed, woken, 0) == ObservedPartial(0, "1", 1.0, 1.5)
            await client.send(bytes(3200), bytes(3200))
            assert (await taken(feed, woken, 1)).text == "3"
            assert all(unstored.take(index) is None for index in range(3)), "its text is not stored"
        for each in (client, silent):
            with suppress(Exception):
                await each.end()
                await each.rest()
