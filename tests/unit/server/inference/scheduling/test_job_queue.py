from collections import Counter
from collections.abc import Callable, Hashable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.inference.batch_limits import BatchLimits
from server.inference.decoding.hypothesis import UtteranceAudio
from server.inference.errors import QueueFull
from server.inference.scheduling.job import Job
from server.inference.scheduling.job_queue import JobQueue
from server.inference.scheduling.session_key import SessionKey

ONE_AT_A_TIME = BatchLimits(rows=1, encoder_frames=1500, waste=0.25)


def job(
    session: Hashable, arrived: float, *, is_partial: bool = False, model: str = "base", seconds: float = 0.0
) -> Job:
    utterance = UtteranceAudio(np.zeros(int(seconds * 16_000), np.float32), "en")
    return Job(model, utterance, 300, lambda _: None, session=session, is_partial=is_partial, arrived=arrived)


def partial(session: Hashable, arrived: float) -> Job:
    return job(session, arrived, is_partial=True)


def queue_of(*jobs: Job, limits: BatchLimits = ONE_AT_A_TIME) -> JobQueue:
    queue = JobQueue(limits, most=100)
    for each in jobs:
        queue.add(each)
    return queue


def served(queue: JobQueue, start: float) -> list[Job]:
    """All jobs in the order in which they are taken, a second apart."""
    order: list[Job] = []
    while batch := queue.take(start + len(order)):
        order += batch
    return order


def test_a_session_with_many_jobs_takes_turns_with_a_later_one() -> None:
    many = [job("many", 0) for _ in range(4)]
    queue = queue_of(*many)
    first = queue.take(1)
    late = [job("late", 1.5), job("late", 1.6)]
    for each in late:
        queue.add(each)
    assert (first, queue.take(2)) == ([many[0]], [late[0]])
    assert served(queue, 3) == [many[1], late[1], many[2], many[3]]


def test_partials_take_their_share_and_finals_all_they_need() -> None:
    queue = JobQueue(ONE_AT_A_TIME, most=100, partial_share=0.2)
    now, busy, pauses = 1000.0, 0.0, 0.0
    while now < 1200:
        queue.add(partial("a", now))
        if batch := queue.take(now):
            now += 0.3
            busy += 0.3
            assert batch[0].is_partial
        else:
            pause = queue.pause(now)
            assert pause is not None
            assert pause > 0
            final = job("b", now)
            queue.add(final)
            assert queue.take(now) == [final], "finals do not wait for the allowance"
            now += pause
            pauses += pause
    assert busy / (busy + pauses) == pytest.approx(0.2, abs=0.02)


def test_a_lone_final_finds_the_engine_idle_whatever_partials_wait() -> None:
    queue = queue_of(job("a", 0), partial("b", 0))
    assert [each.is_idle for each in queue.take(1)] == [True]


def test_the_engine_is_not_idle_with_another_final() -> None:
    queue = queue_of(job("a", 0), job("b", 0), job("c", 0), limits=BatchLimits(rows=2, encoder_frames=1500, waste=0.25))
    assert [each.is_idle for each in queue.take(1)] == [False, False]
    assert [each.is_idle for each in queue.take(1.5)] == [False], "other sessions had finals just now"
    for each in (job("d", 3), job("d", 3)):
        queue.add(each)
        assert [taken.is_idle for taken in queue.take(3)] == [True], "no other session has had one for a while"
    waiting = queue_of(job("a", 0), job("b", 0))
    assert [each.is_idle for each in waiting.take(1)] == [False]


def test_an_empty_queue_pauses_without_limit() -> None:
    assert JobQueue(ONE_AT_A_TIME, most=100, partial_share=0.2).pause(1000) is None


def test_a_newer_partial_replaces_the_waiting_one_and_keeps_its_turn() -> None:
    old, other, new = partial("a", 0), partial("b", 1), partial("a", 2)
    queue = queue_of(old, other)
    assert queue.add(new) is old
    assert served(queue, 3) == [new, other]


def test_a_partial_replaces_only_partials_of_its_session() -> None:
    queue = queue_of(job("a", 0), partial("b", 0))
    assert queue.add(partial("a", 1)) is None
    assert len(queue) == 3


def test_partials_and_finals_have_separate_limits() -> None:
    queue = JobQueue(ONE_AT_A_TIME, most=2)
    for number in range(2):
        queue.add(partial(number, 0))
        queue.add(job(number, 0))
    with pytest.raises(QueueFull):
        queue.add(job("more", 1))
    with pytest.raises(QueueFull):
        queue.add(partial("more", 1))
    assert queue.add(partial(0, 1)) is not None


def test_a_job_that_is_put_back_keeps_its_turn() -> None:
    jobs = [job("a", 0), job("a", 0), job("b", 0.5)]
    queue = queue_of(*jobs)
    first = queue.take(1)
    queue.put_back(first)
    assert served(queue, 2) == [jobs[0], jobs[2], jobs[1]]


def test_partials_are_dropped_while_finals_wait_too_long() -> None:
    queue = queue_of(*[job(number, 0) for number in range(3)], limits=BatchLimits(3, 4500, 0.5))
    queue.add(partial("x", 0))
    assert queue.drop_partials_without_time(0.0) == []
    queue.take(2.0)
    dropped = queue.drop_partials_without_time(2.0)
    assert [each.session for each in dropped] == ["x"]
    queue.add(partial("x", 20.0))
    assert queue.drop_partials_without_time(20.0) == []


def test_waiting_for_its_own_session_leaves_time_for_partials() -> None:
    queue = queue_of(*[job("bulk", 0) for _ in range(50)])
    for number in range(50):
        queue.take(number * 0.2)
    queue.add(partial("x", 10.0))
    assert queue.drop_partials_without_time(10.0) == []


def test_waiting_for_its_own_session_is_no_queue_delay() -> None:
    queue, now = queue_of(), 0.0
    for _ in range(10):
        queue.add(job("a", now))
        queue.add(job("a", now))
        for _ in range(2):
            assert len(queue.take(now)) == 1
            now += 8.0
            assert queue.queue_delay(now - 0.1) == 0
    queue.take(now)
    assert queue.queue_delay(now) == 0


def test_single_slow_batches_keep_the_queue_delay_low() -> None:
    queue, now, delays = queue_of(), 0.0, []
    for _ in range(10):
        queue.add(job("slow", now, model="large"))
        queue.take(now)
        queue.add(job("fast", now + 0.1))
        delays.append(queue.queue_delay(now + 4))
        queue.take(now + 4)
        queue.take(now + 4.2)
        now += 8
    assert 1 < max(delays) < 3, "the model is free for half of the time"


def test_waiting_through_a_batch_of_others_counts_in_full_at_once() -> None:
    queue = queue_of(*[job(number, 0) for number in range(4)])
    queue.take(0)
    assert queue.queue_delay(2.5) == 2.5
    queue.take(3)
    assert queue.queue_delay(4) == 4


def test_a_model_that_hangs_raises_the_queue_delay() -> None:
    queue = queue_of(job("a", 0))
    queue.take(0)
    queue.add(job("b", 1))
    assert queue.queue_delay(5) < 3
    assert queue.queue_delay(12) > 3


def test_many_short_waits_do_not_compensate_a_long_one() -> None:
    limits = BatchLimits(rows=8, encoder_frames=12000, waste=0.25)
    queue = queue_of(limits=limits)
    for now in range(20):
        for number in range(7):
            queue.add(job((now, number), now))
        queue.add(job((now, "late"), now - 5))
        queue.take(now)
    assert queue.queue_delay(19) > 3


def test_repeated_attempts_are_no_queue_delay() -> None:
    queue = queue_of(job("a", 0))
    for now in (0, 5, 10):
        batch = queue.take(now)
        batch[0].trace = {"attempts": 1}
        queue.put_back(batch)
    assert queue.queue_delay(15) == 0


def test_the_queue_delay_decays() -> None:
    queue = queue_of(*[job(number, 0) for number in range(10)])
    served(queue, 1)
    assert queue.queue_delay(11) > 3
    assert queue.queue_delay(31) < 0.1


class Machine:
    """A simulated model whose batches take 1 s per final and 0.2 s per partial, with its queue."""

    def __init__(self) -> None:
        self.queue = queue_of()
        self.now = 0.0
        self.spent: Counter[str] = Counter()
        """Seconds by session and kind."""
        self.waits: list[float] = []
        """The wait of each live final."""

    def run(self, seconds: float, arrivals: Callable[["Machine"], None]) -> None:
        """Before each batch, `arrivals` adds the jobs that have arrived by then."""
        end = self.now + seconds
        while self.now < end:
            arrivals(self)
            self.queue.drop_partials_without_time(self.now)
            for each in self.queue.take(self.now):
                cost = 0.2 if each.is_partial else 1.0
                self.spent[f"{each.session} {each.kind}"] += cost
                if each.session == "live" and not each.is_partial:
                    self.waits.append(self.now - each.arrived)
                self.now += cost
            self.now += 0.001


class Upload:
    """Keeps four utterances of 5 s in the queue."""

    def __init__(self, name: str = "upload") -> None:
        self.name = name
        self.jobs: list[Job] = []

    def __call__(self, machine: Machine) -> None:
        self.jobs = [each for each in self.jobs if each in machine.queue._waiting]
        while len(self.jobs) < 4:
            self.jobs.append(job(self.name, machine.now, seconds=5.0))
            machine.queue.add(self.jobs[-1])


class Live:
    """Speaks for 5 s at a time without a pause, and requests a partial every half second."""

    def __init__(self) -> None:
        self.next_partial, self.next_final = 0.5, 5.0

    def __call__(self, machine: Machine) -> None:
        if machine.now >= self.next_partial:
            machine.queue.add(partial("live", self.next_partial))
            self.next_partial = machine.now + 0.5
        while machine.now >= self.next_final:
            machine.queue.add(job("live", self.next_final, seconds=5.0))
            self.next_final += 5.0


@pytest.mark.parametrize("uploads", [1, 3])
def test_uploads_leave_time_to_partials_and_do_not_delay_live_finals(
    uploads: int,
) -> None:
    machine, sources = Machine(), [Live(), *[Upload(f"upload {number}") for number in range(uploads)]]
    machine.run(100, lambda machine: [source(machine) for source in sources])
    assert machine.spent["live final"] >= 18
    assert max(machine.waits) <= 1.1
    # It requests a partial each half second, and a waiting one is replaced.
    assert machine.spent["live partial"] > 0.2 * 50
    assert sum(machine.spent[f"upload {number} final"] for number in range(uploads)) > 50
    assert machine.queue.queue_delay(machine.now) < 1.1


def test_partials_of_many_sessions_leave_half_the_time_to_uploads() -> None:
    machine, upload = Machine(), Upload()

    def arrive(machine: Machine) -> None:
        upload(machine)
        for number in range(20):
            machine.queue.add(partial(f"live {number}", machine.now))

    machine.run(100, arrive)
    assert 45 < machine.spent["upload final"] < 60
    assert min(machine.spent[f"live {number} partial"] for number in range(20)) > 1


def test_live_finals_at_full_load_do_not_starve_an_upload() -> None:
    machine, upload = Machine(), Upload()

    def arrive(machine: Machine) -> None:
        upload(machine)
        machine.queue.add(job(machine.now, machine.now))

    machine.run(100, arrive)
    assert 8 <= machine.spent["upload final"] <= 14


def test_live_finals_precede_partials_however_many_wait() -> None:
    queue = queue_of(*[job("live", 5.0 * number, seconds=5.0) for number in range(1, 5)])
    queue.add(partial("other", 20))
    assert [each.session for each in served(queue, 20)] == ["live"] * 4 + ["other"]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 60)), max_size=40), st.floats(0.1, 1.4))
def test_a_model_that_is_fast_enough_has_no_queue_delay(arrivals: list[tuple[int, float]], seconds: float) -> None:
    """Every batch takes so long, and holds all waiting jobs: none is passed over, and none waits longer."""
    queue = queue_of(limits=BatchLimits(rows=100, encoder_frames=10**6, waste=0.25))
    arrivals.sort(key=lambda arrival: arrival[1])
    now = 0.0
    while arrivals:
        now = max(now, arrivals[0][1])
        while arrivals and arrivals[0][1] <= now:
            session, at = arrivals.pop(0)
            queue.add(job(session, at))
        queue.take(now)
        now += seconds
        assert queue.queue_delay(now) <= seconds


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20), st.sampled_from("ab")), max_size=40))
def test_every_waiting_session_is_served_between_two_jobs_of_another(arrivals: list[tuple[int, int, str]]) -> None:
    arrivals.sort(key=lambda arrival: arrival[1])
    queue = queue_of(*[job(session, at, model=model) for session, at, model in arrivals])
    order = [each.session for each in served(queue, 21)]
    assert len(order) == len(arrivals)
    for index, session in enumerate(order):
        again = next((later for later in range(index + 1, len(order)) if order[later] == session), None)
        if again is not None:
            waiting = set(order[again:]) - {session}
            assert waiting <= set(order[index + 1 : again])


def finals_of(owners: list[SessionKey], arrived: float) -> list[Job]:
    return [job(owner, arrived) for owner in owners]


@pytest.mark.parametrize("is_partial", [False, True])
def test_tenants_take_turns_before_their_sessions_do(is_partial: bool) -> None:
    flood, other = [SessionKey("flood") for _ in range(20)], SessionKey("other")
    queue = queue_of(*[job(owner, 0, is_partial=is_partial) for owner in flood])
    first = queue.take(1)
    late = job(other, 1.5, is_partial=is_partial)
    queue.add(late)
    assert first[0].tenant == "flood"
    assert queue.take(2) == [late], "the others have waited longer, but their tenant has just been served"
    assert len(served(queue, 3)) == 19


def test_a_single_session_waits_one_batch_for_a_tenant_with_many() -> None:
    limits = BatchLimits(rows=4, encoder_frames=4500, waste=0.25)
    queue, flood, other = queue_of(limits=limits), [SessionKey("flood") for _ in range(40)], SessionKey("other")
    waits = []
    for now in range(100):
        for owner in flood:
            if not any(waiting.session is owner for waiting in queue._waiting):
                queue.add(job(owner, now, seconds=1.0))
        if now % 7 == 0:
            queue.add(job(other, now + 0.5, seconds=1.0))
        waits += [now + 1 - taken.arrived for taken in queue.take(now + 1) if taken.session is other]
    assert max(waits) <= 1.0
    assert queue.queue_delay(100, "flood") > 3
    assert queue.queue_delay(100, "other") < 1.1
    assert queue.queue_delay(100, "a third") < 1.1


def test_the_delay_between_many_tenants_counts_for_a_new_one() -> None:
    queue = queue_of(*[job(SessionKey(f"tenant {number}"), 0) for number in range(10)])
    served_at = 0.0
    for _ in range(8):
        queue.take(served_at)
        served_at += 1.0
    assert queue.queue_delay(served_at, "a new one") > 3


def test_long_utterances_of_a_tenant_do_not_delay_another_for_long() -> None:
    limits = BatchLimits(rows=8, encoder_frames=3000, waste=0.25)
    queue = queue_of(limits=limits)
    for _ in range(8):
        queue.add(Job("base", job("x", 0).utterance, 1500, lambda _: None, session=SessionKey("long"), arrived=0))
    queue.take(0)
    short = job(SessionKey("short"), 0.5)
    queue.add(short)
    assert queue.take(1) == [short]


def test_the_state_for_tenants_is_bounded() -> None:
    queue = queue_of()
    for number in range(1000):
        queue.add(job(SessionKey(number), number))
        queue.take(number)
    assert len(queue._served) <= 1
    assert len(queue._queue_delay._within) < 20


def test_a_flood_of_another_tenant_leaves_a_share_for_partials() -> None:
    machine, flood, speaker = Machine(), [SessionKey("flood") for _ in range(10)], SessionKey("other")
    machine.queue = JobQueue(ONE_AT_A_TIME, most=100, partial_share=0.25)
    passes: list[float] = []

    def arrive(machine: Machine) -> None:
        for owner in flood:
            if not any(waiting.session is owner for waiting in machine.queue._waiting):
                machine.queue.add(job(owner, machine.now))
            machine.queue.add(partial(owner, machine.now))
        machine.queue.add(partial(speaker, machine.now))
        if any(taken.session is speaker for taken in machine.queue._at_model):
            passes.append(machine.now)

    machine.run(100, arrive)
    assert len(passes) >= 20
    assert sum(seconds for name, seconds in machine.spent.items() if name.endswith("final")) > 70


def test_partials_wait_for_live_finals_of_a_tenant_with_few() -> None:
    queue = queue_of(job(SessionKey("a"), 0), partial(SessionKey("b"), 0))
    assert [each.is_partial for each in served(queue, 0.1)] == [False, True]


def test_a_part_keeps_the_turn_of_its_utterance_and_is_not_paced() -> None:
    """It is not refused by a full queue, and does not make its session bulk."""
    queue = JobQueue(ONE_AT_A_TIME, most=2)
    whole = job("a", 0.0, seconds=20.0)
    queue.add(whole)
    assert queue.take(0.0) == [whole]
    waiting = [job("b", 0.1), job("c", 0.2)]
    for each in waiting:
        queue.add(each)
    part = whole.of_part(whole.utterance, 300)
    queue.add(part)
    assert part.is_repeat
    assert (part.is_bulk, part.is_partial, part.session) == (False, False, "a")
    assert set(served(queue, 1.0)) == {part, *waiting}
    assert not queue.add(after := job("a", 30.0, seconds=1.0))
    assert not after.is_bulk
