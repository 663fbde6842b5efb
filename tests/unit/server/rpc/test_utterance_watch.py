"""The stream of the finals of one session, without Postgres."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from dalston.v1 import session_pb2 as pb

from domain.errors import SessionNotFound, StorageUnavailable, TranscriptNotStored
from domain.session_id import format_session_id, new_uuid7
from domain.transcript import Utterance
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.partials import PARTIALS, PartialExchange
from persistence.transcripts import News
from server.access.errors import Unauthenticated
from server.access.gate import OpenGate
from server.rpc import utterance_watch
from server.rpc.drain import Drain
from server.rpc.utterance_watch import UtteranceWatches
from server.rpc.watch import Watches
from server.session.errors import NoCapacity, ServerStopping

TENANT = uuid.uuid4()
SESSION = new_uuid7()


class Transcripts:
    """The transcript of one session, which a test writes."""

    def __init__(self) -> None:
        self.finals: dict[int, str] = {}
        self.is_growing = True
        self.fails: Exception | None = None
        self.reads = 0

    async def news(self, tenant_id: uuid.UUID, session_id: uuid.UUID, offset: int, limit: int) -> News:
        assert (tenant_id, session_id) == (TENANT, SESSION)
        self.reads += 1
        if self.fails is not None:
            raise self.fails
        found = [
            NumberedUtterance(SESSION, index, Utterance(index, index + 1, text, 1.0, "en"))
            for index, text in sorted(self.finals.items())
            if index >= offset
        ]
        return News(found[:limit], len(found) > limit, self.is_growing)


class Reader:
    """The context of a call whose client reads at once."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.messages: list[pb.WatchUtterancesResponse] = []
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def write(self, message: pb.WatchUtterancesResponse) -> None:
        self.messages.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message.type for message in self.messages if message.type != "heartbeat"]

    @property
    def texts(self) -> list[str]:
        return [message.utterance.text for message in self.messages if message.type == "utterance"]


class RevocableGate(OpenGate):
    is_revoked = False

    async def readmit(self, method: str, _authorization: list[str]) -> None:
        assert method == "WatchUtterances"
        if self.is_revoked:
            raise Unauthenticated


class Harness:
    def __init__(self, most: int = 2) -> None:
        self.transcripts, self.drain, self.gate = Transcripts(), Drain(), RevocableGate()
        self.change_notifier = ChangeNotifier(None)  # type: ignore[arg-type]  # it is rung by hand
        self.watches = Watches(None, self.change_notifier, self.gate, self.drain, most)  # type: ignore[arg-type]
        self.partials = PartialExchange(None)  # type: ignore[arg-type]  # nothing is sent
        self.utterance_watches = UtteranceWatches(self.transcripts, self.partials, self.watches)  # type: ignore[arg-type]

    def open(self, reader: Reader, offset: int = 0) -> asyncio.Task[None]:
        request = pb.WatchUtterancesRequest(session_id=format_session_id(SESSION), offset=offset)
        call: Any = self.utterance_watches.run(TENANT, request, reader)  # type: ignore[arg-type]
        return asyncio.create_task(call)

    def speak(self, index: int, text: str) -> None:
        """A partial of the utterance of this index arrives."""
        self.partials.channels[PARTIALS](json.dumps([SESSION.hex, index, text, 1.0, 2.0]))

    def say(self, *texts: str) -> None:
        for text in texts:
            self.transcripts.finals[len(self.transcripts.finals)] = text


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utterance_watch, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(utterance_watch, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(utterance_watch, "LONGEST_POLL_SECONDS", 0.05)
    monkeypatch.setattr(utterance_watch, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(utterance_watch, "READMIT_SECONDS", 0.05)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_each_final_is_sent_once_and_in_order_until_the_end() -> None:
    harness, reader = Harness(), Reader()
    harness.say("one", "two")
    task = harness.open(reader)
    await until(lambda: reader.texts == ["one", "two"])
    harness.say("three")
    await until(lambda: reader.texts == ["one", "two", "three"])
    harness.say("four")
    harness.transcripts.is_growing = False
    await task
    assert reader.texts == ["one", "two", "three", "four"]
    assert [message.utterance.index for message in reader.messages if message.type == "utterance"] == [0, 1, 2, 3]
    assert reader.kinds[-1] == "ended"
    assert harness.change_notifier.watches(TENANT) == 0


async def test_a_stream_begins_at_the_offset() -> None:
    harness, reader = Harness(), Reader()
    harness.say("one", "two", "three")
    harness.transcripts.is_growing = False
    await harness.open(reader, offset=2)
    assert reader.texts == ["three"]
    reader = Reader()
    await harness.open(reader, offset=3)
    assert reader.kinds == ["ended"]


async def test_many_finals_are_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utterance_watch, "_PAGE", 2)
    harness, reader = Harness(), Reader()
    harness.say(*map(str, range(7)))
    harness.transcripts.is_growing = False
    await harness.open(reader)
    assert reader.texts == list("0123456")


async def test_a_final_after_a_gap_waits_until_the_gap_is_filled() -> None:
    harness, reader = Harness(), Reader()
    harness.transcripts.finals = {0: "one", 2: "three"}
    task = harness.open(reader)
    await until(lambda: harness.transcripts.reads > 3)
    assert reader.texts == ["one"]
    harness.transcripts.finals[1] = "two"
    await until(lambda: len(reader.texts) == 3)
    assert reader.texts == ["one", "two", "three"]
    harness.transcripts.finals[5] = "six"
    harness.transcripts.is_growing = False
    await task
    assert reader.texts == ["one", "two", "three", "six"]


async def test_silence_is_heartbeats_and_the_first_comes_at_once() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    await until(lambda: len(reader.messages) >= 3)
    assert {message.type for message in reader.messages} == {"heartbeat"}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stream_survives_an_outage_but_not_the_deletion_of_its_session() -> None:
    harness, reader = Harness(), Reader()
    harness.say("one")
    task = harness.open(reader)
    await until(lambda: reader.texts == ["one"])
    harness.transcripts.fails = StorageUnavailable("away")
    await until(lambda: harness.transcripts.reads > 5)
    harness.say("two")
    harness.transcripts.fails = None
    await until(lambda: reader.texts == ["one", "two"])
    harness.transcripts.fails = SessionNotFound(format_session_id(SESSION))
    with pytest.raises(SessionNotFound):
        await task
    assert (reader.messages[-1].type, reader.messages[-1].code) == ("error", "session_not_found")


async def test_a_partial_is_sent_when_all_finals_before_it_were() -> None:
    harness, reader = Harness(), Reader()
    harness.say("one")
    task = harness.open(reader)
    await until(lambda: reader.texts == ["one"])
    await until(lambda: harness.transcripts.reads > 1)
    harness.speak(1, "tw")
    await until(lambda: reader.kinds == ["utterance", "partial"])
    assert (reader.messages[-1].partial.text, reader.messages[-1].partial.end) == ("tw", 2.0)
    harness.speak(2, "thr")
    harness.speak(2, "thre")
    reads = harness.transcripts.reads
    await until(lambda: harness.transcripts.reads > reads + 3)
    assert reader.kinds == ["utterance", "partial"]
    harness.say("two")
    await until(lambda: len(reader.kinds) == 4)
    assert reader.kinds == ["utterance", "partial", "utterance", "partial"]
    assert reader.messages[-1].partial.text == "thre"
    harness.say("three")
    await until(lambda: reader.texts == ["one", "two", "three"])
    harness.speak(2, "late")
    harness.transcripts.is_growing = False
    await task
    assert reader.kinds[4:] == ["utterance", "ended"]


async def test_a_session_whose_text_may_not_be_read_is_not_observed() -> None:
    harness, reader = Harness(), Reader()
    harness.transcripts.fails = TranscriptNotStored(format_session_id(SESSION))
    observed = []
    harness.partials.watching = lambda *_: observed.append(1)  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(TranscriptNotStored):
        await harness.open(reader)
    assert not observed


async def test_an_error_before_the_first_message_is_a_status_only() -> None:
    for metadata in ((), (("x-head", "1"),)):
        harness, reader = Harness(), Reader(*metadata)
        harness.transcripts.fails = TranscriptNotStored(format_session_id(SESSION))
        with pytest.raises(TranscriptNotStored):
            await harness.open(reader)
        assert reader.messages == []


async def test_head_sends_nothing() -> None:
    harness, reader = Harness(), Reader(("x-head", "1"))
    harness.say("one")
    await harness.open(reader)
    assert reader.messages == []


async def test_a_revoked_key_ends_the_stream() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    await until(lambda: len(reader.messages) == 1)
    harness.gate.is_revoked = True
    with pytest.raises(Unauthenticated):
        await task
    assert (reader.messages[-1].type, reader.messages[-1].code) == ("error", "unauthenticated")


async def test_streams_take_the_places_of_watches_and_end_with_the_server() -> None:
    harness = Harness(most=1)
    task = harness.open(Reader())
    await until(lambda: harness.change_notifier.watches(TENANT) == 1)
    with pytest.raises(NoCapacity):
        await harness.open(Reader())
    harness.drain.begin(0)
    with pytest.raises(ServerStopping):
        await task
