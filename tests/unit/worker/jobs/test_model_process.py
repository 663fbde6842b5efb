"""The process of the models as jobs call it: a real process where its end counts, a thread elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from domain.errors import StorageUnavailable
from domain.job import JobRequest
from domain.transcript import TimedWord, Utterance
from server.audio.decoder import Samples
from tests.model_in_a_thread import ThreadChild, starting_threads
from tests.scripted_recognizer import ScriptedRecognizer
from worker.jobs.interruption import Interruption, Stopped
from worker.jobs.model_process import JobAudio, ModelDied, ModelProcess, ModelUnavailable, RecognitionFailed
from worker.model import hanging
from worker.model.hanging import Hanging
from worker.model.messages import utterances_from_json, utterances_to_json
from worker.model.process import Child, Start, starting
from worker.model.recognizer import Audio, Plan

_RATE = 16_000
_REQUEST = JobRequest(vocabulary=("Zürich",))


async def read(first: int, last: int) -> Samples:
    return np.arange(first, min(last, 3 * _RATE), dtype=np.float32)


def audio(interruption: Interruption | None = None, reads: Callable[..., Awaitable[Samples]] = read) -> JobAudio:
    return JobAudio(3 * _RATE, reads, interruption or Interruption())


class Misbehaving(ScriptedRecognizer):
    """Does by the word of the request what no recognizer should."""

    def recognize(self, request: JobRequest, plan: Plan, number: int, audio: Audio) -> Sequence[Utterance]:
        match request.vocabulary:
            case ("raise",):
                raise MemoryError("no memory left")
            case ("exit",):
                os._exit(7)
            case ("crash",):
                os.kill(os.getpid(), signal.SIGSEGV)
            case ("stop",):
                os.kill(os.getpid(), signal.SIGSTOP)
            case ("sleep",):
                time.sleep(3600)
            case ("disconnect",):
                os.closerange(3, 65_536)
                time.sleep(3600)
        return super().recognize(request, plan, number, audio)


def misbehaving() -> Misbehaving:
    return Misbehaving()


def unloadable() -> ScriptedRecognizer:
    raise OSError("no weights of this name")


def dying() -> ScriptedRecognizer:
    os._exit(9)


def slow() -> ScriptedRecognizer:
    time.sleep(3600)
    raise AssertionError


class Started:
    """Starts processes, and remembers them."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.children: list[Child] = []

    def __call__(self) -> Child:
        self.children.append(self._start())
        return self.children[-1]

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self.children]


def process(function: str = "misbehaving", priority: Any = "normal") -> Started:
    return Started(starting(f"tests.unit.worker.jobs.test_model_process:{function}", priority, "INFO", "json"))


@asynccontextmanager
async def model_of(start: Start, interruption: Interruption | None = None) -> AsyncIterator[ModelProcess]:
    model = ModelProcess(start, interruption or Interruption())
    try:
        yield model
    finally:
        await model.close()


def deaths(phase: str) -> float:
    return REGISTRY.get_sample_value("dalston_model_deaths_total", {"phase": phase}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def proc(pid: int | str, name: str) -> str:
    """A file of proc(5); empty if there is none."""
    path = Path(f"/proc/{pid}/{name}")
    return path.read_text() if path.exists() else ""


def state(pid: int) -> str:
    return proc(pid, "stat").rpartition(")")[2].split()[0]


def opened(pid: int) -> dict[str, str]:
    return {each.name: str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_process_gives_the_results_of_the_recognizer_itself() -> None:
    class Here:
        length = 3 * _RATE

        def read(self, first: int, last: int) -> Samples:
            return np.arange(first, min(last, self.length), dtype=np.float32)

    local = ScriptedRecognizer()
    expected = local.listen(_REQUEST, Here())
    async with model_of(start := process()) as model:
        assert start.pids == [], "a worker without jobs loads no models"
        assert await model.models() == local.models
        assert await model.supports("accurate", "de")
        assert not await model.supports("accurate", "xx")
        plan = await model.listen(_REQUEST, audio())
        assert (plan.to_json(), plan.language, list(plan.ends)) == (expected.to_json(), "en", [1.0, 2.0, 3.0])
        assert await model.plan_of(plan.to_json()) == plan
        with pytest.raises(ValueError, match="not a plan"):
            await model.plan_of([])
        found = [each for number in range(3) for each in await model.recognize(_REQUEST, plan, number, audio())]
        assert found == [each for number in range(3) for each in local.recognize(_REQUEST, expected, number, Here())]
        judgement = await model.judge(plan, [], found, "en")
        assert (judgement.outcome, judgement.defect) == ("no_speech", "no_speech")
        assert len(start.pids) == 1


def test_utterances_are_the_same_on_the_other_side() -> None:
    words = (TimedWord("Grüße,", 0.1, 1 / 3, 0.7), TimedWord("\n", 1e-9, 2.0, 1.0))
    utterances = [Utterance(0.1, 2 / 3, "Grüße, \n", 1 / 7, "de", 1 / 9, words), Utterance(1.0, 2.0, "", 0.0, "en")]
    assert utterances_from_json(utterances_to_json(utterances)) == utterances


async def test_the_process_has_no_credentials_and_no_open_files_of_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = ("DALSTON_DATABASE_URL", "DALSTON_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("DALSTON_DEVICE", "cpu")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with model_of(start := process()) as model:
            await model.models()
            (pid,) = start.pids
            names = {each.partition("=")[0] for each in proc(pid, "environ").split("\0")}
            assert "DALSTON_DEVICE" in names
            assert not names & set(secrets)
            files = opened(pid)
            others = [target for number, target in files.items() if number not in ("0", "1", "2")]
            assert files["0"] == "/dev/null"
            assert len(others) == 1, others
            assert others[0].startswith("socket:")


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="of Linux")
async def test_the_process_alone_has_the_lowest_priority_and_a_session() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    async with model_of(start := process(priority="idle")) as model:
        await model.models()
        (pid,) = start.pids
        assert os.getsid(pid) == pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert proc(pid, "oom_score_adj").strip() == "500"
        if group := proc(pid, "autogroup"):
            assert group.split()[-1] == "19"
            assert proc("self", "autogroup").split()[-1:] != ["19"]
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)) == before


@pytest.mark.parametrize(
    ("word", "how"), [("exit", "exit code 7"), ("crash", "signal SIGSEGV"), ("disconnect", "signal SIGKILL")]
)
async def test_a_process_that_ends_during_a_call_fails_that_call_alone(word: str, how: str) -> None:
    before = deaths("call")
    async with model_of(start := process()) as model:
        plan = await model.listen(_REQUEST, audio())
        failing = asyncio.create_task(model.recognize(JobRequest(vocabulary=(word,)), plan, 0, audio()))
        waiting = asyncio.create_task(model.recognize(_REQUEST, plan, 1, audio()))
        with pytest.raises(ModelDied, match=how):
            await failing
        assert model.is_failing
        (utterance,) = await waiting
        assert not model.is_failing
        assert utterance.start == 1.0
        assert len(set(start.pids)) == 2
        assert deaths("call") == before + 1


async def test_a_process_that_is_killed_between_two_calls_costs_nothing() -> None:
    before = deaths("idle")
    async with model_of(start := process()) as model:
        await model.models()
        os.kill(start.pids[0], signal.SIGKILL)
        await until(lambda: deaths("idle") == before + 1)
        assert await model.supports("fast", "en")
        assert len(start.pids) == 2


async def test_an_error_in_the_process_names_its_place_and_the_next_call_has_a_new_process() -> None:
    before = deaths("call")
    async with model_of(start := process()) as model:
        plan = await model.listen(_REQUEST, audio())
        with pytest.raises(RecognitionFailed, match=r"MemoryError\('no memory left'\)") as caught:
            await model.recognize(JobRequest(vocabulary=("raise",)), plan, 0, audio())
        assert "in recognize" in caught.value.__notes__[0]
        assert await model.recognize(_REQUEST, plan, 0, audio())
        assert len(start.pids) == 2
        assert deaths("call") == before, "the worker has replaced it"


@pytest.mark.parametrize(
    ("function", "message"),
    [("unloadable", "no weights of this name"), ("dying", "while it loaded the models: exit code 9")],
)
async def test_models_that_cannot_be_loaded_are_no_failure_of_a_job(function: str, message: str) -> None:
    async with model_of(process(function)) as model:
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match=message):
                await model.models()
            assert model.is_failing


async def test_a_process_that_cannot_be_started_is_no_failure_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    async with model_of(process()) as model:
        with pytest.raises(ModelUnavailable, match="No such file"):
            await model.models()


@pytest.mark.parametrize("data", [b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x01\0\0\0\0\0\0\0{", b"\x02"])
async def test_a_process_that_sends_nonsense_is_replaced(data: bytes) -> None:
    sent = iter([data])

    class Nonsense(ThreadChild):
        def _serve(self, load: Callable[[], Any]) -> None:
            if (nonsense := next(sent, None)) is None:
                super()._serve(load)
                return
            with self._theirs:
                self._theirs.sendall(nonsense)

    async with model_of(lambda: Nonsense(ScriptedRecognizer)) as model:
        with pytest.raises(ModelUnavailable, match="ended while it loaded the models"):
            await model.models()
        assert await model.supports("fast", "en")


async def test_calls_take_turns_in_their_order() -> None:
    order: list[str] = []

    async def job(model: ModelProcess, name: str) -> None:
        plan = await model.listen(_REQUEST, audio())
        for number in range(3):
            await model.recognize(_REQUEST, plan, number, audio())
            order.append(f"{name}{number}")

    async with model_of(starting_threads(ScriptedRecognizer)) as model:
        await asyncio.gather(job(model, "a"), job(model, "b"))
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


@pytest.mark.parametrize("error", [StorageUnavailable("away"), TimeoutError()])
async def test_an_error_of_reading_ends_the_call_and_the_process_stays(error: Exception) -> None:
    async def fail(first: int, last: int) -> Samples:
        raise error

    async with model_of(start := Started(starting_threads(ScriptedRecognizer))) as model:
        plan = await model.listen(_REQUEST, audio())
        with pytest.raises(type(error)):
            await model.recognize(_REQUEST, plan, 0, audio(reads=fail))
        assert await model.recognize(_REQUEST, plan, 0, audio())
        assert len(start.children) == 1


async def test_more_samples_than_a_call_needs_are_refused() -> None:
    class Greedy(ScriptedRecognizer):
        def listen(self, request: JobRequest, audio: Audio) -> Plan:
            audio.read(0, 1 << 40)
            raise AssertionError

    async with model_of(starting_threads(Greedy)) as model:
        with pytest.raises(ValueError, match="samples were asked for at once"):
            await model.listen(_REQUEST, audio())


async def hang(first: int, last: int) -> Samples:
    await asyncio.Event().wait()
    raise AssertionError


async def test_the_end_of_the_worker_ends_a_read_that_hangs_and_calls_that_wait() -> None:
    interruption = Interruption()
    async with model_of(start := process(), interruption) as model:
        await model.models()
        reading = asyncio.create_task(model.listen(_REQUEST, audio(interruption, hang)))
        waiting = asyncio.create_task(model.models())
        await asyncio.sleep(0.05)
        assert not reading.done()
        interruption.request()
        for call in (reading, waiting):
            with pytest.raises(Stopped):
                await call
        assert len(start.pids) == 1


async def test_the_end_of_the_worker_does_not_wait_for_models_that_load() -> None:
    interruption = Interruption()
    async with model_of(start := process("slow"), interruption) as model:
        calling = asyncio.create_task(model.models())
        await until(lambda: bool(start.pids))
        interruption.request()
        with pytest.raises(Stopped):
            await calling
        assert not proc(start.pids[0], "stat")


async def test_a_call_that_is_cancelled_ends_its_process_even_if_that_is_stopped() -> None:
    async with model_of(start := process()) as model:
        plan = await model.listen(_REQUEST, audio())
        calling = asyncio.create_task(model.recognize(JobRequest(vocabulary=("stop",)), plan, 0, audio()))
        await until(lambda: state(start.pids[0]) == "T")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert not proc(start.pids[0], "stat")


async def test_signals_to_all_processes_of_the_worker_do_not_end_the_process() -> None:
    async with model_of(start := process()) as model:
        plan = await model.listen(_REQUEST, audio())
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(start.pids[0], number)
        assert await model.recognize(_REQUEST, plan, 0, audio())
        assert len(start.pids) == 1


async def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with model_of(process()) as model:
        plan = await model.listen(_REQUEST, audio())
        monkeypatch.setattr("worker.jobs.model_process.LOOK_SECONDS", 0.01)
        monkeypatch.setattr(hanging, "_STILL_LOOKS", 2)
        with pytest.raises(ModelDied, match="slept for"):
            await model.recognize(JobRequest(vocabulary=("sleep",)), plan, 0, audio())


class Proc:
    """Files of proc(5) with two threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "7" / "task" / "7").mkdir(parents=True)
        (folder / "7" / "task" / "8").mkdir()

    def write(self, states: str, cpu_seconds: float) -> None:
        ticks = int(cpu_seconds * os.sysconf("SC_CLK_TCK"))
        for path, state in zip(("7/task/7", "7/task/8", "7"), (*states, states[0]), strict=True):
            line = f"7 (py) thon)) {state} 1 7 7 0 -1 4194304 0 0 0 0 {ticks} 0 0 0 20 0 2 0 1 1 1"
            (self.folder / path / "stat").write_text(line)


def looks(proc: Proc, hang: Hanging, count: int, states: str, cpu: Callable[[int], float]) -> set[str | None]:
    found = set()
    for number in range(count):
        proc.write(states, cpu(number))
        found.add(hang.look())
    return found


def test_only_sleep_without_cpu_time_and_endless_computing_are_hangs(tmp_path: Path) -> None:
    proc = Proc(tmp_path)
    # Ready to run, stopped, or waiting for a disk: it is not its fault.
    for states in ("SR", "ST", "DS", "TT"):
        assert looks(proc, Hanging(7, tmp_path), 1000, states, lambda _: 5.0) == {None}
    assert looks(proc, Hanging(7, tmp_path), 1000, "SS", lambda number: number / 10) == {None}
    assert looks(proc, Hanging(7, tmp_path), 60, "SS", lambda _: 5.0) == {None}
    assert looks(proc, Hanging(7, tmp_path), 61, "SS", lambda _: 5.0) == {None, "slept for 10 minutes"}
    used = looks(proc, Hanging(7, tmp_path), 1000, "RR", lambda number: 20.0 * number)
    assert used == {None, "used 4 hours of CPU time"}
    assert Hanging(8, tmp_path).look() is None


async def test_a_pause_ends_with_the_worker() -> None:
    interruption = Interruption()
    await interruption.pause(0.01)
    interruption.check()
    pausing = asyncio.create_task(interruption.pause(3600))
    await asyncio.sleep(0)
    interruption.request()
    with pytest.raises(Stopped):
        await pausing
    with pytest.raises(Stopped):
        interruption.check()
