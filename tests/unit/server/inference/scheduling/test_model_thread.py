"""The worker with a scripted model."""

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
from server.inference.scheduling.model_thread import ModelThread

SECONDS = 5.0
"""A deadline that is only reached if the code is broken."""
FULL = 1500


def hypothesis(ending: str = "end", text: str = "hello") -> Hypothesis:
    return Hypothesis(text, (1,), (-0.1,), "en", None, ending, 0.0, seconds=1.0)  # type: ignore[arg-type]


class ScriptedModel:
    """Records its batches as (size, window), and waits in each until it may finish."""

    full_window = FULL

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.begun = threading.Semaphore(0)
        self.may_finish = threading.Semaphore(0)
        self.outcome: Callable[[UtteranceAudio, int], Hypothesis] = lambda *_: hypothesis()

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
        self.batches.append((len(utterances), encoder_frames))
        self.begun.release()
        assert self.may_finish.acquire(timeout=SECONDS)
        return [self.outcome(utterance, encoder_frames) for utterance in utterances]


class Caller:
    """Submits jobs and receives their outcomes."""

    def __init__(self, model_thread: ModelThread) -> None:
        self._model_thread = model_thread
        self.outcomes: Queue[Hypothesis | InferenceError] = Queue()

    def submit(
        self, encoder_frames: int = 320, model: str = "base", *, session: str = "", is_partial: bool = False
    ) -> Job:
        utterance = UtteranceAudio(np.zeros(16000, np.float32), "en")
        job = Job(model, utterance, encoder_frames, self.outcomes.put, session=session, is_partial=is_partial)
        self._model_thread.submit(job)
        return job

    def outcome(self) -> Hypothesis | InferenceError:
        return self.outcomes.get(timeout=SECONDS)


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def model_thread(model: ScriptedModel) -> Iterator[ModelThread]:
    model_thread = ModelThread(BatchLimits(rows=4, encoder_frames=6000, waste=0.5), queue_limit=8)
    model_thread.start(lambda: {"base": model}).result(timeout=SECONDS)
    yield model_thread
    model.may_finish.release(1000)
    model_thread.stop()


@pytest.fixture
def caller(model_thread: ModelThread) -> Caller:
    return Caller(model_thread)


def test_jobs_that_wait_for_a_busy_model_form_one_batch(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    for _ in range(3):
        caller.submit()
    model.may_finish.release(2)
    outcomes = [caller.outcome() for _ in range(4)]
    assert outcomes == [hypothesis()] * 4
    assert model.batches == [(1, 320), (3, 320)]


def test_abandoned_jobs_are_dropped(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    dropped = [caller.submit() for _ in range(2)]
    caller.submit()
    for job in dropped:
        job.abandoned = True
    model.may_finish.release(2)
    assert [caller.outcome(), caller.outcome()] == [hypothesis()] * 2
    assert model.batches == [(1, 320), (1, 320)]
    assert caller.outcomes.empty()


def test_a_defective_hypothesis_is_repeated_with_the_full_window(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda _, encoder_frames: hypothesis(
        "loop" if encoder_frames < FULL else "end", text=str(encoder_frames)
    )
    model.may_finish.release(2)
    caller.submit(encoder_frames=320)
    outcome = caller.outcome()
    assert isinstance(outcome, Hypothesis)
    assert outcome.text == str(FULL)
    assert model.batches == [(1, 320), (1, FULL)]


def test_a_defective_hypothesis_of_the_full_window_is_delivered(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda *_: hypothesis("cap")
    model.may_finish.release(1)
    caller.submit(encoder_frames=FULL)
    assert caller.outcome() == hypothesis("cap")
    assert model.batches == [(1, FULL)]


def test_a_failed_batch_fails_only_its_own_jobs(caller: Caller, model: ScriptedModel) -> None:
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


def test_a_panic_in_a_library_fails_its_batch_and_not_the_worker(caller: Caller, model: ScriptedModel) -> None:
    class PanicException(BaseException):
        """What PyO3 raises for a panic in Rust code, such as the tokenizer."""

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
    """Has memory for so many encoder frames."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.may_finish.release(1000)

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
        hypotheses = super().transcribe(utterances, encoder_frames)
        if len(utterances) * encoder_frames > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return hypotheses


def batched(model: ScriptedModel, encoder_frames: Sequence[int], *, is_partial: bool = False) -> list[object]:
    """The outcomes of jobs that are taken as one batch."""
    model_thread = ModelThread(BatchLimits(rows=8, encoder_frames=12000, waste=0.9, partial_rows=8), queue_limit=8)
    caller = Caller(model_thread)
    for number, each in enumerate(encoder_frames):
        caller.submit(each, session=str(number), is_partial=is_partial)
    model_thread.start(lambda: {"base": model}).result(timeout=SECONDS)
    outcomes: list[object] = [caller.outcome() for _ in encoder_frames]
    model_thread.stop()
    return outcomes


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_batch_that_does_not_fit_is_halved_by_length(is_partial: bool) -> None:
    model = SmallMemory(room=800)
    outcomes = batched(model, [400, 100, 300, 200, 400, 100], is_partial=is_partial)
    assert outcomes == [hypothesis()] * 6
    assert model.batches == [(6, 400), (3, 200), (3, 400), (1, 300), (2, 400)]


def test_an_utterance_that_does_not_fit_fails_alone() -> None:
    outcomes = batched(SmallMemory(room=600), [700, 200, 200, 200])
    assert [isinstance(outcome, RecognitionFailed) for outcome in outcomes].count(True) == 1
    assert outcomes.count(hypothesis()) == 3


def test_a_batch_that_fails_otherwise_is_repeated_one_by_one() -> None:
    model = ScriptedModel()
    model.may_finish.release(1000)

    def fail_together(*_: object) -> Hypothesis:
        if model.batches[-1][0] > 1:
            raise RuntimeError("one of them causes this")
        return hypothesis()

    model.outcome = fail_together
    assert batched(model, [300, 300, 300]) == [hypothesis()] * 3
    assert [rows for rows, _ in model.batches] == [3, 1, 1, 1]


def test_a_failed_batch_is_freed_before_it_is_repeated() -> None:
    class Held:
        """Represents the tensors of a batch."""

    class HoldingModel(SmallMemory):
        def __init__(self) -> None:
            super().__init__(room=600)
            self.held: list[weakref.ref[Held]] = []
            self.held_at_begin: list[bool] = []

        def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
            self.held_at_begin.append(any(reference() is not None for reference in self.held))
            tensors = Held()
            self.held.append(weakref.ref(tensors))
            return super().transcribe(utterances, encoder_frames)

    model = HoldingModel()
    with capture_logs():  # the console renderer would keep the traceback
        batched(model, [300] * 4)
    assert model.held_at_begin == [False] * 3


def test_limits_may_change_once_the_models_are_loaded(model: ScriptedModel) -> None:
    model_thread = ModelThread(BatchLimits(rows=4, encoder_frames=6000, waste=0.5), queue_limit=8)
    caller = Caller(model_thread)
    for number in range(4):
        caller.submit(session=str(number))

    def load() -> dict[str, ScriptedModel]:
        model_thread.limit(BatchLimits(rows=2, encoder_frames=6000, waste=0.5))
        return {"base": model}

    model.may_finish.release(1000)
    model_thread.start(load).result(timeout=SECONDS)
    assert [caller.outcome() for _ in range(4)] == [hypothesis()] * 4
    model_thread.stop()
    assert model.batches == [(2, 320), (2, 320)]


def test_a_full_queue_refuses_jobs_until_there_is_room(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    waiting = [caller.submit() for _ in range(8)]
    with pytest.raises(QueueFull):
        caller.submit()
    waiting[3].abandoned = True
    caller.submit()


def test_stopping_finishes_the_current_batch_and_fails_waiting_jobs(
    caller: Caller, model: ScriptedModel, model_thread: ModelThread
) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    caller.submit()
    stopper = threading.Thread(target=model_thread.stop)
    stopper.start()
    while True:  # until the worker has noticed the stop and refuses jobs
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
    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8)
    model_thread.stop()
    model_thread.stop()
    with pytest.raises(EngineStopped):
        Caller(model_thread).submit()


def test_a_model_that_cannot_be_loaded_fails_the_start() -> None:
    def load() -> dict[str, ScriptedModel]:
        raise WeightsError("there is no such model")

    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8)
    with pytest.raises(WeightsError, match="no such model"):
        model_thread.start(load).result(timeout=SECONDS)
    model_thread.stop()


def test_a_worker_stops_if_its_caller_cancels_during_loading(model: ScriptedModel) -> None:
    loading, may_load = threading.Event(), threading.Event()

    def load() -> dict[str, ScriptedModel]:
        loading.set()
        assert may_load.wait(SECONDS)
        return {"base": model}

    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8)
    loaded = model_thread.start(load)
    assert loading.wait(SECONDS)
    loaded.cancel()
    may_load.set()
    model_thread.stop()
    with pytest.raises(EngineStopped):
        Caller(model_thread).submit()


def test_a_final_that_arrives_during_partials_goes_next(caller: Caller, model: ScriptedModel) -> None:
    caller.submit(encoder_frames=100, session="a", is_partial=True)
    assert model.begun.acquire(timeout=SECONDS)
    caller.submit(encoder_frames=200, session="b", is_partial=True)
    caller.submit(encoder_frames=320, session="a")
    model.may_finish.release(3)
    assert [caller.outcome() for _ in range(3)] == [hypothesis()] * 3
    assert model.batches == [(1, 100), (1, 320), (1, 200)]


def test_only_the_newest_partial_of_a_session_waits(caller: Caller, model: ScriptedModel) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    for encoder_frames in (100, 200, 300):
        caller.submit(encoder_frames=encoder_frames, session="a", is_partial=True)
    dropped = [caller.outcome(), caller.outcome()]
    assert all(isinstance(outcome, PartialDropped) for outcome in dropped)
    model.may_finish.release(2)
    assert [caller.outcome(), caller.outcome()] == [hypothesis()] * 2
    assert model.batches == [(1, 320), (1, 300)]


def test_a_defective_partial_is_not_repeated(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda *_: hypothesis("loop")
    model.may_finish.release(1)
    caller.submit(session="a", is_partial=True)
    assert caller.outcome() == hypothesis("loop")
    assert model.batches == [(1, 320)]


def test_waiting_partials_fail_when_the_worker_stops(
    caller: Caller, model: ScriptedModel, model_thread: ModelThread
) -> None:
    caller.submit()
    assert model.begun.acquire(timeout=SECONDS)
    caller.submit(session="a", is_partial=True)
    model.may_finish.release(1000)
    model_thread.stop()
    outcomes = [caller.outcome(), caller.outcome()]
    assert outcomes[0] == hypothesis()
    assert isinstance(outcomes[1], EngineStopped) or outcomes[1] == hypothesis()


def test_the_measurements_of_a_job_are_recorded(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda _, encoder_frames: hypothesis("loop" if encoder_frames < FULL else "end")
    model.may_finish.release(2)
    job = caller.submit(encoder_frames=320)
    caller.outcome()
    assert job.trace["attempts"] == 2
    assert job.trace["encoder_frames"] == FULL
    assert job.trace["batch"] == 1
    assert 0 <= job.trace["computed"] <= job.trace["waited"] + SECONDS


class Judging(Hypothesis):
    """Raises when it is judged."""

    @property
    def failing(self) -> None:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("outcomes", [[], [Judging("a", (), (), "en", None, "end", 0.0, seconds=1.0)]])
def test_an_invalid_result_fails_its_batch_and_not_the_worker(outcomes: list[Hypothesis]) -> None:
    class Answering(ScriptedModel):
        def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
            return outcomes if encoder_frames == 100 else [hypothesis()]

    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8)
    model_thread.start(lambda: {"base": Answering()}).result(timeout=SECONDS)
    caller = Caller(model_thread)
    caller.submit(encoder_frames=100)
    assert isinstance(caller.outcome(), RecognitionFailed)
    caller.submit(encoder_frames=200)
    assert caller.outcome() == hypothesis()
    model_thread.stop()


def test_an_unknown_model_fails_its_batch_and_not_the_worker(caller: Caller, model: ScriptedModel) -> None:
    caller.submit(model="unknown")
    assert isinstance(caller.outcome(), RecognitionFailed)
    model.may_finish.release()
    caller.submit()
    assert caller.outcome() == hypothesis()


def no_memory(*_: object) -> list[Job]:
    raise MemoryError


def fail_to_deliver(_: object) -> None:
    raise MemoryError


CAUSES_OF_DEATH: dict[str, Callable[[ModelThread, ScriptedModel, pytest.MonkeyPatch], None]] = {
    "the queue breaks": lambda model_thread, _, patch: patch.setattr(model_thread._queue, "take", no_memory),
    "progress cannot be noted": lambda _, __, patch: patch.setattr(
        "server.inference.scheduling.model_thread._note", no_memory
    ),
    "the metrics break": lambda _, __, patch: patch.setattr("server.inference.metrics.BATCH_SIZE.labels", no_memory),
    "the device is lost": lambda _, model, __: setattr(model, "outcome", lose_the_device),
}


def lose_the_device(*_: object) -> Hypothesis:
    raise torch.AcceleratorError("an illegal memory access was encountered")


@pytest.mark.parametrize("cause", CAUSES_OF_DEATH)
def test_a_thread_that_dies_reports_it_and_fails_all_jobs(
    cause: str, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = threading.Event()
    model_thread = ModelThread(BatchLimits(rows=1, encoder_frames=6000, waste=0.5), queue_limit=8)
    model.may_finish.release(1000)
    caller = Caller(model_thread)
    for _ in range(3):
        caller.submit()
    CAUSES_OF_DEATH[cause](model_thread, model, monkeypatch)
    with capture_logs() as logs:
        model_thread.start(lambda: {"base": model}, died.set).result(timeout=SECONDS)
        outcomes = [caller.outcome() for _ in range(3)]
        model_thread.stop()
    assert died.is_set()
    assert all(isinstance(outcome, EngineStopped) for outcome in outcomes)
    assert "the model's thread has died" in [line["event"] for line in logs]
    with pytest.raises(EngineStopped):
        caller.submit()


def test_a_failed_delivery_ends_the_thread_and_fails_other_jobs(
    model: ScriptedModel,
) -> None:
    died = threading.Event()
    model_thread = ModelThread(BatchLimits(rows=4, encoder_frames=6000, waste=0.5), queue_limit=8)
    caller = Caller(model_thread)
    before = caller.submit(session="a")
    undeliverable = caller.submit(session="b")
    undeliverable.deliver = fail_to_deliver
    caller.submit(session="c")
    model.may_finish.release(1000)
    model_thread.start(lambda: {"base": model}, died.set).result(timeout=SECONDS)
    assert caller.outcome() == hypothesis()
    assert isinstance(caller.outcome(), EngineStopped)
    model_thread.stop()
    assert died.is_set()
    assert caller.outcomes.empty()
    assert before.settled


def test_a_stopped_thread_has_not_died(model: ScriptedModel) -> None:
    died = threading.Event()
    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8)
    model_thread.start(lambda: {"base": model}, died.set).result(timeout=SECONDS)
    model_thread.stop()
    assert not died.is_set()


class PlainModel(ScriptedModel):
    """Fails if it is constructed with an error; finishes at once."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
        self.batches.append((len(utterances), encoder_frames))
        if self._error is not None:
            raise self._error
        return [hypothesis() for _ in utterances]


@pytest.mark.parametrize("error", [None, MemoryError()])
def test_a_lone_final_uses_high_beam_and_falls_back_on_failure(error: Exception | None) -> None:
    plain, high_beam = PlainModel(), PlainModel(error)
    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8)
    outcomes: Queue[Hypothesis | InferenceError] = Queue()
    model_thread.start(lambda: {"base": plain, "base, 3 beams": high_beam}).result(timeout=SECONDS)
    try:
        utterance = UtteranceAudio(np.zeros(16000, np.float32), "en")
        model_thread.submit(Job("base", utterance, 320, outcomes.put, session=1, high_beam_model="base, 3 beams"))
        assert isinstance(outcomes.get(timeout=SECONDS), Hypothesis)
    finally:
        model_thread.stop()
    assert (len(high_beam.batches), len(plain.batches)) == (1, 0 if error is None else 1)


def test_partials_over_their_share_resume_without_another_job() -> None:
    model_thread = ModelThread(BatchLimits(4, 6000, 0.5), queue_limit=8, partial_share=0.01)
    model = ScriptedModel()
    caller = Caller(model_thread)
    model_thread.start(lambda: {"base": model}).result(timeout=SECONDS)
    try:
        caller.submit(session="one", is_partial=True)
        assert model.begun.acquire(timeout=SECONDS)
        time.sleep(SAVED_SECONDS + 0.02)
        model.may_finish.release()
        caller.outcome()
        caller.submit(session="one", is_partial=True)
        assert not model.begun.acquire(timeout=0.5)
        assert model.begun.acquire(timeout=SECONDS), "no other job is submitted"
    finally:
        model.may_finish.release(10)
        model_thread.stop()


@pytest.mark.parametrize("reason", ["empty", "suppressed", "coverage"])
def test_a_defect_needs_confirmation_by_the_full_window(reason: str, caller: Caller, model: ScriptedModel) -> None:
    defective = {
        "empty": replace(hypothesis(), text="", tokens=(), log_probabilities=()),
        "suppressed": replace(hypothesis(), log_probabilities=(-1.0,), no_speech_probability=0.9),
        "coverage": replace(hypothesis(), uncovered=Stretch(0.0, 5.0)),
    }[reason]
    assert defective.failing == reason
    model.outcome = lambda _, encoder_frames: defective if encoder_frames < FULL else hypothesis()
    model.may_finish.release(2)
    caller.submit(encoder_frames=320)
    assert caller.outcome() == hypothesis()
    assert model.batches == [(1, 320), (1, FULL)]


def test_a_partial_is_attempted_once(caller: Caller, model: ScriptedModel) -> None:
    model.outcome = lambda *_: hypothesis(text="")
    model.may_finish.release(1)
    caller.submit(encoder_frames=320, is_partial=True)
    assert caller.outcome() == hypothesis(text="")
    assert model.batches == [(1, 320)]
