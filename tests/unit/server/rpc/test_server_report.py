"""What a server reports of itself."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from dalston.v1.status_pb2 import Process, StorageBacklog

from server.rpc.admission import Admission
from server.rpc.drain import Drain
from server.rpc.server_report import TEXT_LATE_SECONDS, ServerReport
from server.session.recent_partials import RecentPartials


class Server:
    """The parts of a server that a report reads."""

    def __init__(self, places: ExitStack) -> None:
        self.delay = 0.0
        self.places = places
        self.drain = Drain()
        self.partials = RecentPartials()
        self.admission = Admission(2, 3.0, lambda _tenant: self.delay)
        self.report = ServerReport(
            self.admission, self.partials, self.drain, lambda: StorageBacklog(sessions=3, spool_bytes=7.0)
        )

    def described(self) -> tuple[Process, set[str]]:
        process = Process()
        return process, set(self.report.describe(process))


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as places:
        yield Server(places)


def test_a_server_without_sessions_has_no_latencies_and_no_degradation(server: Server) -> None:
    process, degradations = server.described()
    assert degradations == set()
    assert (process.server.sessions, process.server.max_sessions, process.server.max_queue_delay_seconds) == (0, 2, 3.0)
    assert process.server.finals.count == 0
    assert not process.server.finals.HasField("p95_seconds")
    assert not process.server.HasField("suppressed_partials")
    assert (process.server.storage.sessions, process.server.storage.spool_bytes) == (3, 7.0)


async def test_a_server_starts_is_ready_and_drains(server: Server) -> None:
    assert server.described()[0].state == "starting"
    server.report.is_ready = True
    assert server.described()[0].state == "ready"
    server.drain.begin(0.0)
    assert server.described()[0].state == "draining"


def test_latencies_are_those_of_the_answers(server: Server) -> None:
    lag = server.places.enter_context(server.admission.place("sess_1", "tenant"))
    for seconds in (1.0, 2.0, 9.0):
        lag.handed_over(0.0)
        lag.answered(seconds)
    server.partials.sent.add(0.25)
    figures = server.described()[0].server
    assert (figures.finals.count, figures.finals.p50_seconds, figures.finals.p95_seconds) == (3, 2.0, 9.0)
    assert (figures.partials.count, figures.partials.p50_seconds) == (1, 0.25)
    assert figures.sessions == 1


def test_a_full_server_is_at_capacity_until_a_session_ends(server: Server) -> None:
    for number in range(2):
        server.places.enter_context(server.admission.place(f"sess_{number}", "tenant"))
    assert server.described()[1] == {"at_capacity"}
    server.places.close()
    assert server.described()[1] == set()


def test_a_long_queue_delay_is_behind(server: Server) -> None:
    server.places.enter_context(server.admission.place("sess_1", "tenant"))
    server.delay = 4.0
    process, degradations = server.described()
    assert degradations == {"behind"}
    assert process.server.queue_delay_seconds == 4.0


def test_a_session_that_waits_long_is_late(server: Server) -> None:
    lag = server.places.enter_context(server.admission.place("sess_1", "tenant"))
    lag.handed_over(time.monotonic() - TEXT_LATE_SECONDS)
    process, degradations = server.described()
    assert process.server.longest_wait_seconds >= TEXT_LATE_SECONDS
    assert degradations == {"text_late"}


def test_partials_are_suppressed_when_the_model_has_no_time_for_most_of_them(server: Server) -> None:
    for _ in range(19):
        server.partials.note_pass(has_text=False)
    assert server.described()[1] == set()
    server.partials.note_pass(has_text=False)
    process, degradations = server.described()
    assert degradations == {"partials_suppressed"}
    assert process.server.suppressed_partials == 1.0
