"""The worker with a model that does what the test says."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Queue

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from server.inference.batch_limits import BatchLimits
from server.inference.decoding.coverage import Stretch
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.errors import (
    EngineStopped,
    InferenceError,
    PartialDropped,
    QueueFull,
    RecognitionFailed,
    WeightsError,
)
from server.inference.scheduling.allowance import SAVED_SECONDS
from server.inference.scheduling.job import Job
from server.inference.scheduling.worker import Worker

SECONDS = 5.0
"""Nothing here takes this long unless it is broken."""
FULL = 1500


def hypothesis(ending: str = "end", text: str = "hello") -> Hypothesis:
    return Hypothesis(text, (1,), (-0.1,), "en", None, ending, 0.0, seconds=1.0)  # type: ignore[arg-type]


class ScriptedModel:
    """Records its batches as (size, window) and waits in each until told to go on."""

    full_window = FULL

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.begun = threading.Semaphore(0)
        self.may_finish = threading.Semaphore(0)
        self.outcome: Callable[[UtteranceAudio, int], Hypothesis] = lambda *_: hypothesis()

    def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
        self.batches.append((len(utterances), frames))
        self.begun.release()
        assert self.may_finish.acquire(timeout=SECONDS)
        return [self.outcome(utterance, frames) for utterance in utterances]


class Caller:
    """Submits jobs and receives what becomes of them."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.outcomes: Queue[Hypothesis | InferenceError] = Queue()

    def submit(self, frames: int = 320, model: str = "base", *, session: str = "", is_partial: bool = False) -> Job:
        utterance = UtteranceAudio(np.zeros(16000, np.float32), "en")
        job = Job(model, utterance, frames, self.outcomes.put, session=session, is_partial=is_partial)
        self._worker.submit(job)
        return job

    def outcome(self) -> Hypothesis | InferenceError:
        return self.outcomes.get(timeout=SECONDS)


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def worker(model: ScriptedModel) -> Iterator[Worker]:
    worker = Worker(BatchLimits(rows=4, frames=6000, waste=0.5), queue_limit=8)
    worker.start(lambda: {"base": model}).result(timeout=SECONDS)
    yield worker
    model.may_finish.release(1000)
    worker.stop()


@pytest.fixture
def caller(worker: Worker) -> Caller:
    return Caller(worker)


def test_what_waits_while_the_model_is_busy_goes_as_one_batch(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    for _ in range(3):
        caller.submit()
    model.may_finish.release(2)
    outcomes = [caller.outcome() for _ in range(4)]
    assert outcomes == [hypothesis()] * 4
    assert model.batches == [(1, 320), (3, 320)]


def test_work_whose_caller_has_gone_is_dropped(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    given_up = [caller.submit() for _ in range(2)]
    caller.submit()
    for job in given_up:
        job.abandoned = True
    model.may_finish.release(2)
    assert [caller.outcome(), caller.outcome()] == [hypothesis()] * 2
    assert model.batches == [(1, 320), (1, 320)]
    assert caller.outcomes.empty()


def test_an_utterance_in_which_the_model_failed_is_done_again_with_the_full_window(
    caller: Caller, model: ScriptedModel
) -> None:
    model.outcome = lambda _, frames: hypothesis("loop" if frames < FULL else "end", text=str(frames))
    model.may_finish.release(2)
    caller.submit(frames=320)
    outcome = caller.outcome()
    assert isinstance(outcome, Hypothesis)
    assert outcome.text == str(FULL)
    assert model.batches == [(1, 320), (1, FULL)]


def test_an_utterance_in_which_the_model_fails_with_the_full_window_is_delivered_as_it_is(
    caller: Caller, model: ScriptedModel
) -> None:
    model.outcome = lambda *_: hypothesis("cap")
    model.may_finish.release(1)
    caller.submit(frames=FULL)
    assert caller.outcome() == hypothesis("cap")
    assert model.batches == [(1, FULL)]


def test_a_failing_batch_fails_its_own_jobs_and_no_other(caller: Caller, model: ScriptedModel) -> None:
    def fail(*_: object) -> Hypothesis:
        raise RuntimeError("out of memory")

    model.outcome = fail
    caller.submit()
    model.may_finish.release(1)
    assert isinstance(caller.outcome(), RecognitionFailed)
    model.outcome = lambda *_: hypothesis()
    caller.submit()
    model.may_finish.release(1)
    assert caller.outcome() == hypothesis()


def test_a_panic_of_a_library_fails_its_batch_and_not_the_worker(caller: Caller, model: ScriptedModel) -> None:
    class PanicException(BaseException):
        """What PyO3 makes of a panic in Rust, such as the tokenizer's."""

    def panic(*_: object) -> Hypothesis:
        raise PanicException

    model.outcome = panic
    model.may_finish.release(2)
    caller.submit()
    assert isinstance(caller.outcome(), RecognitionFailed)
    model.outcome = lambda *_: hypothesis()
    caller.submit()
    assert caller.outcome() == hypothesis()


class SmallMemory(ScriptedModel):
    """Has room for so many frames."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.may_finish.release(1000)

    def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
        hypotheses = super().transcribe(utterances, frames)
        if len(utterances) * frames > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return hypotheses


def batched(model: ScriptedModel, frames: Sequence[int], *, is_partial: bool = False) -> list[object]:
    """What becomes of jobs that are taken as one batch."""
    worker = Worker(BatchLimits(rows=8, frames=12000, waste=0.9, partial_rows=8), queue_limit=8)
    caller = Caller(worker)
    for number, each in enumerate(frames):
        caller.submit(each, session=str(number), is_partial=is_partial)
    worker.start(lambda: {"base": model}).result(timeout=SECONDS)
    outcomes: list[object] = [caller.outcome() for _ in frames]
    worker.stop()
    return outcomes


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_batch_that_does_not_fit_is_halved_until_it_does_the_short_ones_together(is_partial: bool) -> None:
    model = SmallMemory(room=800)
    outcomes = batched(model, [400, 100, 300, 200, 400, 100], is_partial=is_partial)
    assert outcomes == [hypothesis()] * 6
    assert model.batches == [(6, 400), (3, 200), (3, 400), (1, 300), (2, 400)]


def test_one_utterance_that_does_not_fit_fails_and_the_others_of_its_batch_do_not() -> None:
    outcomes = batched(SmallMemory(room=600), [700, 200, 200, 200])
    assert [isinstance(outcome, RecognitionFailed) for outcome in outcomes].count(True) == 1
    assert outcomes.count(hypothesis()) == 3


def test_a_batch_that_fails_otherwise_is_tried_one_by_one() -> None:
    model = ScriptedModel()
    model.may_finish.release(1000)

    def fail_together(*_: object) -> Hypothesis:
        if model.batches[-1][0] > 1:
            raise RuntimeError("one of them is at fault")
        return hypothesis()

    model.outcome = fail_together
    assert batched(model, [300, 300, 300]) == [hypothesis()] * 3
    assert [rows for rows, _ in model.batches] == [3, 1, 1, 1]


def test_what_a_failed_batch_held_is_let_go_before_it_is_tried_again() -> None:
    class Held:
        """Stands for a batch's tensors."""

    class HoldingModel(SmallMemory):
        def __init__(self) -> None:
            super().__init__(room=600)
            self.held: list[weakref.ref[Held]] = []
            self.held_at_begin: list[bool] = []

        def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
            self.held_at_begin.append(any(reference() is not None for reference in self.held))
            tensors = Held()
            self.held.append(weakref.ref(tensors))
            return super().transcribe(utterances, frames)

    model = HoldingModel()
    with capture_logs():  # the default for consoles keeps the traceback
        batched(model, [300] * 4)
    assert model.held_at_begin == [False] * 3


def test_limits_may_change_once_the_models_are_loaded(model: ScriptedModel) -> None:
    worker = Worker(BatchLimits(rows=4, frames=6000, waste=0.5), queue_limit=8)
    caller = Caller(worker)
    for number in range(4):
        caller.submit(session=str(number))

    def load() -> dict[str, ScriptedModel]:
        worker.limit(BatchLimits(rows=2, frames=6000, waste=0.5))
        return {"base": model}

    model.may_finish.release(1000)
    worker.start(load).result(timeout=SECONDS)
    assert [caller.outcome() for _ in range(4)] == [hypothesis()] * 4
    worker.stop()
    assert model.batches == [(2, 320), (2, 320)]


def test_one_more_than_the_queue_holds_is_refused_until_there_is_room(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    waiting = [caller.submit() for _ in range(8)]
    with pytest.raises(QueueFull):
        caller.submit()
    waiting[3].abandoned = True
    caller.submit()


def test_stopping_lets_the_running_batch_finish_and_fails_what_waits(
    caller: Caller, model: ScriptedModel, worker: Worker
) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    caller.submit()
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    while True:  # until the worker has seen the stop: from then on it refuses
        try:
            caller.submit()
        except EngineStopped:
            break
    model.may_finish.release(1)
    stopper.join(timeout=SECONDS)
    assert caller.outcome() == hypothesis()
    assert isinstance(caller.outcome(), EngineStopped)
    assert model.batches == [(1, 320)]


def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8)
    worker.stop()
    worker.stop()
    with pytest.raises(EngineStopped):
        Caller(worker).submit()


def test_a_model_that_cannot_be_loaded_fails_the_start() -> None:
    def load() -> dict[str, ScriptedModel]:
        raise WeightsError("there is no such model")

    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8)
    with pytest.raises(WeightsError, match="no such model"):
        worker.start(load).result(timeout=SECONDS)
    worker.stop()


def test_whoever_gives_up_waiting_for_the_models_leaves_a_worker_that_stops(model: ScriptedModel) -> None:
    loading, may_load = threading.Event(), threading.Event()

    def load() -> dict[str, ScriptedModel]:
        loading.set()
        assert may_load.wait(SECONDS)
        return {"base": model}

    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8)
    loaded = worker.start(load)
    assert loading.wait(SECONDS)
    loaded.cancel()
    may_load.set()
    worker.stop()
    with pytest.raises(EngineStopped):
        Caller(worker).submit()


def test_a_final_that_comes_while_partials_run_goes_next(caller: Caller, model: ScriptedModel) -> None:
    caller.submit(frames=100, session="a", is_partial=True)
    assert model.begun.acquire(timeout=SECONDS)
    caller.submit(frames=200, session="b", is_partial=True)
    caller.submit(frames=320, session="a")
    model.may_finish.release(3)
    assert [caller.outcome() for _ in range(3)] == [hypothesis()] * 3
    assert model.batches == [(1, 100), (1, 320), (1, 200)]


def test_of_a_session_s_partials_only_the_newest_waits(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    for frames in (100, 200, 300):
        caller.submit(frames=frames, session="a", is_partial=True)
    dropped = [caller.outcome(), caller.outcome()]
    assert all(isinstance(outcome, PartialDropped) for outcome in dropped)
    model.may_finish.release(2)
    assert [caller.outcome(), caller.outcome()] == [hypothesis()] * 2
    assert model.batches == [(1, 320), (1, 300)]


def test_a_partial_in_which_the_model_failed_is_not_done_again(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda *_: hypothesis("loop")
    model.may_finish.release(1)
    caller.submit(session="a", is_partial=True)
    assert caller.outcome() == hypothesis("loop")
    assert model.batches == [(1, 320)]


def test_partials_that_wait_when_the_worker_stops_fail(caller: Caller, model: ScriptedModel, worker: Worker) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    caller.submit(session="a", is_partial=True)
    model.may_finish.release(1000)
    worker.stop()
    outcomes = [caller.outcome(), caller.outcome()]
    assert outcomes[0] == hypothesis()
    assert isinstance(outcomes[1], EngineStopped) or outcomes[1] == hypothesis()


def test_how_a_job_went_is_noted(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda _, frames: hypothesis("loop" if frames < FULL else "end")
    model.may_finish.release(2)
    job = caller.submit(frames=320)
    caller.outcome()
    assert job.trace["tries"] == 2
    assert job.trace["frames"] == FULL
    assert job.trace["batch"] == 1
    assert 0 <= job.trace["computed"] <= job.trace["waited"] + SECONDS


class Judging(Hypothesis):
    """Cannot be judged."""

    @property
    def failing(self) -> None:
        raise RuntimeError("a mistake of ours")


@pytest.mark.parametrize("outcomes", [[], [Judging("a", (), (), "en", None, "end", 0.0, seconds=1.0)]])
def test_an_answer_that_is_none_fails_its_batch_and_not_the_worker(outcomes: list[Hypothesis]) -> None:
    class Answering(ScriptedModel):
        def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
            return outcomes if frames == 100 else [hypothesis()]

    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8)
    worker.start(lambda: {"base": Answering()}).result(timeout=SECONDS)
    caller = Caller(worker)
    caller.submit(frames=100)
    assert isinstance(caller.outcome(), RecognitionFailed)
    caller.submit(frames=200)
    assert caller.outcome() == hypothesis()
    worker.stop()


def test_a_model_that_is_not_there_fails_its_batch_and_not_the_worker(caller: Caller, model: ScriptedModel) -> None:
    caller.submit(model="unknown")
    assert isinstance(caller.outcome(), RecognitionFailed)
    model.may_finish.release()
    caller.submit()
    assert caller.outcome() == hypothesis()


def is_full(*_: object) -> list[Job]:
    raise MemoryError


def cannot_be_told(_: object) -> None:
    raise MemoryError


DEATHS: dict[str, Callable[[Worker, ScriptedModel, pytest.MonkeyPatch], None]] = {
    "the queue breaks": lambda worker, _, patch: patch.setattr(worker._queue, "take", is_full),
    "what went on cannot be noted": lambda _, __, patch: patch.setattr(
        "server.inference.scheduling.worker._note", is_full
    ),
    "the metrics break": lambda _, __, patch: patch.setattr("server.inference.metrics.BATCH_SIZE.labels", is_full),
    "the device is lost": lambda _, model, __: setattr(model, "outcome", lose_the_device),
}


def lose_the_device(*_: object) -> Hypothesis:
    raise torch.AcceleratorError("an illegal memory access was encountered")


@pytest.mark.parametrize("death", DEATHS)
def test_a_thread_that_dies_says_so_and_leaves_nobody_waiting(
    death: str, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = threading.Event()
    worker = Worker(BatchLimits(rows=1, frames=6000, waste=0.5), queue_limit=8)
    model.may_finish.release(1000)
    caller = Caller(worker)
    for _ in range(3):
        caller.submit()
    DEATHS[death](worker, model, monkeypatch)
    with capture_logs() as logs:
        worker.start(lambda: {"base": model}, died.set).result(timeout=SECONDS)
        outcomes = [caller.outcome() for _ in range(3)]
        worker.stop()
    assert died.is_set()
    assert all(isinstance(outcome, EngineStopped) for outcome in outcomes)
    assert "the model's thread has died" in [line["event"] for line in logs]
    with pytest.raises(EngineStopped):
        caller.submit()


def test_a_caller_that_cannot_be_told_ends_the_thread_and_the_others_are_told(
    model: ScriptedModel,
) -> None:
    died = threading.Event()
    worker = Worker(BatchLimits(rows=4, frames=6000, waste=0.5), queue_limit=8)
    caller = Caller(worker)
    before = caller.submit(session="a")
    deaf = caller.submit(session="b")
    deaf.deliver = cannot_be_told
    caller.submit(session="c")
    model.may_finish.release(1000)
    worker.start(lambda: {"base": model}, died.set).result(timeout=SECONDS)
    assert caller.outcome() == hypothesis()
    assert isinstance(caller.outcome(), EngineStopped)
    worker.stop()
    assert died.is_set()
    assert caller.outcomes.empty()
    assert before.settled


def test_a_thread_that_is_stopped_has_not_died(model: ScriptedModel) -> None:
    died = threading.Event()
    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8)
    worker.start(lambda: {"base": model}, died.set).result(timeout=SECONDS)
    worker.stop()
    assert not died.is_set()


class Named(ScriptedModel):
    """Fails if it is told to; needs no leave to finish."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
        self.batches.append((len(utterances), frames))
        if self._error is not None:
            raise self._error
        return [hypothesis() for _ in utterances]


@pytest.mark.parametrize("error", [None, MemoryError()])
def test_a_final_that_is_alone_has_the_careful_model_and_the_plain_one_if_that_fails(error: Exception | None) -> None:
    plain, high_beam = Named(), Named(error)
    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8)
    outcomes: Queue[Hypothesis | InferenceError] = Queue()
    worker.start(lambda: {"base": plain, "careful": high_beam}).result(timeout=SECONDS)
    try:
        utterance = UtteranceAudio(np.zeros(16000, np.float32), "en")
        worker.submit(Job("base", utterance, 320, outcomes.put, session=1, high_beam_model="careful"))
        assert isinstance(outcomes.get(timeout=SECONDS), Hypothesis)
    finally:
        worker.stop()
    assert (len(high_beam.batches), len(plain.batches)) == (1, 0 if error is None else 1)


def test_partials_that_have_had_their_share_go_on_by_themselves_after_a_while() -> None:
    worker = Worker(BatchLimits(4, 6000, 0.5), queue_limit=8, partial_share=0.01)
    model = ScriptedModel()
    caller = Caller(worker)
    worker.start(lambda: {"base": model}).result(timeout=SECONDS)
    try:
        caller.submit(session="one", is_partial=True)
        assert model.begun.acquire(timeout=SECONDS)
        time.sleep(SAVED_SECONDS + 0.02)
        model.may_finish.release()
        caller.outcome()
        caller.submit(session="one", is_partial=True)
        assert not model.begun.acquire(timeout=0.5)
        assert model.begun.acquire(timeout=SECONDS), "nobody else submits anything"
    finally:
        model.may_finish.release(10)
        worker.stop()


@pytest.mark.parametrize("reason", ["empty", "suppressed", "coverage"])
def test_nothing_is_given_up_before_the_full_window_agrees(reason: str, caller: Caller, model: ScriptedModel) -> None:
    worse = {
        "empty": replace(hypothesis(), text="", tokens=(), log_probabilities=()),
        "suppressed": replace(hypothesis(), log_probabilities=(-1.0,), no_speech_probability=0.9),
        "coverage": replace(hypothesis(), uncovered=Stretch(0.0, 5.0)),
    }[reason]
    assert worse.failing == reason
    model.outcome = lambda _, frames: worse if frames < FULL else hypothesis()
    model.may_finish.release(2)
    caller.submit(frames=320)
    assert caller.outcome() == hypothesis()
    assert model.batches == [(1, 320), (1, FULL)]


def test_a_partial_is_tried_once(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda *_: hypothesis(text="")
    model.may_finish.release(1)
    caller.submit(frames=320, is_partial=True)
    assert caller.outcome() == hypothesis(text="")
    assert model.batches == [(1, 320)]
