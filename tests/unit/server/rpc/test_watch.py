"""The end of streams of changes."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from dalston.v1 import session_pb2 as pb

from domain.errors import StorageUnavailable
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.changes import ChangePage, Snapshot
from persistence.postgres.position import Position
from server.access.gate import OpenGate
from server.rpc import watch
from server.rpc.drain import Drain
from server.rpc.watch import Watches
from server.session.errors import IdleTimeout, NoCapacity, ServerStopping

TENANT = uuid4()
HERE = Position(1, 10, 10)


class Store:
    """A store without changes; `fails` is the error of a poll."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.polls = 0

    async def resume(self, *_: Any) -> None:
        return None

    async def snapshot(self, *_: Any) -> Snapshot:
        return Snapshot((), HERE, None)

    async def page(self, *_: Any) -> ChangePage:
        self.polls += 1
        if self.fails is not None:
            raise self.fails
        return ChangePage((), HERE, None)


class Reader:
    """The context of a call."""

    def __init__(self) -> None:
        self.messages: list[pb.WatchSessionsResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.came = asyncio.Event()

    def invocation_metadata(self) -> None:
        return None

    async def write(self, message: pb.WatchSessionsResponse) -> None:
        await self.reads.wait()
        self.messages.append(message)
        self.came.set()

    @property
    def kinds(self) -> list[str]:
        return [message.type for message in self.messages]


class Harness:
    def __init__(self, most: int = 2) -> None:
        self.store, self.drain = Store(), Drain()
        self.change_notifier = ChangeNotifier(None)  # type: ignore[arg-type]  # it is rung by hand
        self.watches = Watches(self.store, self.change_notifier, OpenGate(), self.drain, most)  # type: ignore[arg-type]

    def open(self, reader: Reader) -> asyncio.Task[None]:
        return asyncio.create_task(self.watches.run(TENANT, pb.WatchSessionsRequest(), reader))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(watch, "LONGEST_POLL_SECONDS", 0.05)
    monkeypatch.setattr(watch, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_WRITE_SECONDS", 0.2)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stalled_stream_ends_without_a_last_message() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    await until(lambda: "ready" in reader.kinds)
    reader.reads.clear()
    with pytest.raises(IdleTimeout):
        await task
    assert "error" not in reader.kinds
    assert harness.change_notifier.watches(TENANT) == 0


async def test_a_disconnect_frees_the_place_of_a_stream() -> None:
    harness = Harness(most=1)
    reader = Reader()
    task = harness.open(reader)
    await until(lambda: "ready" in reader.kinds)
    with pytest.raises(NoCapacity):
        await harness.open(Reader())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    later = Reader()
    task = harness.open(later)
    await until(lambda: "ready" in later.kinds)
    harness.drain.begin(0)
    with pytest.raises(ServerStopping):
        await task
    with pytest.raises(ServerStopping):
        await harness.open(Reader())


async def test_a_stream_survives_an_outage_and_hides_the_text_of_a_bug() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    harness.store.fails = StorageUnavailable("away")
    await until(lambda: harness.store.polls > 5 and "heartbeat" in reader.kinds)
    harness.store.fails = KeyError("a secret")
    with pytest.raises(KeyError):
        await task
    last = reader.messages[-1]
    assert (last.type, last.code, last.message) == ("error", "internal", "internal error")
    assert last.resume_token == reader.messages[0].resume_token
