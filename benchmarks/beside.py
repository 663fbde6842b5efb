"""Live streams beside a batch job on the same machine: what the job costs them, by the way in which it is scheduled.

    python benchmarks/beside.py                                  4 streams of the sample recording: about 15 minutes
    python benchmarks/beside.py --streams 2 --modes none,idle,idle-group
    python benchmarks/beside.py --modes none,idle-group,idle-pinned --rounds 12 --manifest clips.tsv

The whole local stack serves real-time WebSocket streams with partials, as in `latency.py`, without interruption. Every
`--seconds` the job changes, in an order that differs from round to round, so that other load on the machine affects all
of them alike. An utterance belongs to the job during which it ends, and a first partial to that during which its
utterance begins; those close to a change do not count. The job (`batch_job.py`) is a process of its own in a session of
its own, as the parts of the local stack are, with one thread of the model:

    none            no job
    normal          the default class, nice 0
    nice            nice 19
    idle            nice 19 and SCHED_IDLE
    idle-group      the same, and the lowest weight for its autogroup
    idle-pinned     the same, on the last CPU only
    worker          the worker of the stack with an uploaded file: as the product does it
    upload          no process: the same speech through the server's own queue, as a stream with a beam size of five
                    that is sent as fast as the server accepts it

CPU is that of the server per second of live audio, so that of `upload` includes the job. Waiting is the time in which a
thread of the server was ready and had no CPU. Both distinguish a job that takes the CPU from one that slows the server
down by its use of caches and memory. Late is the longest delay of a thread of the default class in the process of the
job. The bar: the p95 of finals is at most 10 % and 0.1 s later than without a job.
"""

import argparse
import asyncio
import contextlib
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from batch_job import BEAMS, BEAT_SECONDS, SCHEDULING, WINDOW_SECONDS, windows
from dalston import AsyncClient
from latency import percentiles
from live import Message, ServiceProtocol, run_streams, stream, tracks
from own import meter, own_stack
from provenance import ROOT, commit, load, machine
from scoring import ReceivedText, judge_each
from speech import RATE, Clip, Samples, Track, clips
from usage import usage

from stack.supervisor import Stack

MODES = ("none", *SCHEDULING, "worker", "upload")
DEFAULT_MODES = ("none", "normal", "nice", "idle", "idle-group", "upload")
READY_SECONDS = 120.0
SETTLE_SECONDS = 3.0
"""After a change of the job: the work of the one before is still in the queue."""
TAIL_SECONDS = 2.0
"""Before a change: the text arrives during the next job."""
UPLOAD_REST_SECONDS = 30.0
"""After an upload: the server may work on a cancelled one for 10 s, and then on the live finals that waited."""
UPLOAD_SPEED = 30.0
"""Times real time: more than the server can transcribe."""
UPLOAD_HOURS = 0.5
"""More than it can transcribe meanwhile."""
WORKER_HOURS = 2.0
"""More than the worker can transcribe during a run."""
LATER_RATIO = 1.1
LATER_SECONDS = 0.1
HEADER = [
    "job",
    "finals",
    "lost",
    "p50 s",
    "p95 s",
    "max s",
    "of no job: p50",
    "p95",
    "p95, s later",
    "first partial p50 s",
    "p95 s",
    "CPU s per audio s",
    "waiting s per audio s",
    "job: audio s per s",
    "late s",
    "within the bar",
]


@dataclass(frozen=True)
class Counters:
    """What has been used so far."""

    cpu: float
    """Seconds of the server."""
    waiting: float
    """Seconds in which threads of the server were ready and had no CPU."""
    job: float
    """Seconds of audio that the job has transcribed."""


@dataclass(frozen=True)
class Slot:
    """The time of one job between two changes, in seconds of `time.monotonic`."""

    mode: str
    start: float
    end: float
    before: Counters
    after: Counters

    def counts(self, at: float) -> bool:
        """Whether an event belongs to it."""
        return self.start + SETTLE_SECONDS <= at <= self.end - TAIL_SECONDS


class Job(Protocol):
    """A job that can be paused. It is paused when it is created."""

    seconds: float
    """Of audio that it has transcribed."""
    late: float
    """The longest delay of its other thread while it was not paused, in seconds."""

    async def resume(self) -> None: ...

    async def pause(self) -> None: ...

    async def close(self) -> None: ...


class NoJob:
    seconds = 0.0
    late = 0.0

    async def resume(self) -> None:
        pass

    async def pause(self) -> None:
        pass

    async def close(self) -> None:
        pass


class ProcessJob:
    """`batch_job.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.seconds = 0.0
        self.late = 0.0
        self._process = process
        self._resumed = math.inf
        self._beaten = 0.0
        self._ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str]) -> "ProcessJob":
        """Returns when its model is loaded."""
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, start_new_session=True)
        job = cls(process)
        async with asyncio.timeout(READY_SECONDS):
            await job._ready.wait()
        await job.pause()
        return job

    async def resume(self) -> None:
        self._resumed = time.monotonic()
        self._process.send_signal(signal.SIGCONT)

    async def pause(self) -> None:
        if self._resumed < math.inf:
            # A thread that is starved prints nothing.
            self.late = max(self.late, time.monotonic() - max(self._resumed, self._beaten) - BEAT_SECONDS)
        self._process.send_signal(signal.SIGSTOP)

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = json.loads(line)
            self.seconds += report.get("audio_seconds", 0.0)
            if "beat" in report:
                self._beaten = time.monotonic()
            if report.get("beat", 0.0) >= self._resumed:
                self.late = max(self.late, report["late"])
            if not report:
                self._ready.set()


class WorkerJob:
    """A file that the worker of the stack transcribes. A pause stops the process of its models."""

    def __init__(self, client: AsyncClient, job_id: str, worker: int) -> None:
        self.seconds = 0.0
        self.late = 0.0
        self._client = client
        self._job_id = job_id
        self._worker = worker
        self._running = asyncio.Event()
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def start(cls, stack: Stack, language: str, samples: Samples) -> "WorkerJob":
        """Returns when the job runs."""
        client = AsyncClient(stack.base_url)
        worker = next(process.popen.pid for process in stack.processes if process.name == "worker")
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="FLAC")
        submitted = await client.transcribe_file(io.BytesIO(file.getvalue()), language=language).submit()
        job = cls(client, submitted.id, worker)
        async with asyncio.timeout(READY_SECONDS):
            await job._running.wait()
        await job.pause()
        return job

    async def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._signal(signal.SIGCONT)
        await self._client.jobs.cancel(self._job_id)
        await self._client.close()

    def _signal(self, number: signal.Signals) -> None:
        for task in Path(f"/proc/{self._worker}/task").iterdir():
            for child in (task / "children").read_text().split():
                os.kill(int(child), number)

    async def _watch(self) -> None:
        async for job in self._client.jobs.watch(self._job_id):
            self.seconds = job.progress * job.audio_duration_seconds
            if job.progress:
                self._running.set()


class UploadJob:
    """A stream that is sent faster than real time, another one after each pause."""

    def __init__(self, url: str, language: str, samples: Samples) -> None:
        self.seconds = 0.0
        self.late = 0.0
        self._url = url
        self._language = language
        self._samples = samples
        self._sending: asyncio.Task[ReceivedText] | None = None

    async def resume(self) -> None:
        protocol = UploadProtocol(self._url, self._language, self)
        self._sending = asyncio.create_task(stream(protocol, Track(self._samples, (), self._language), UPLOAD_SPEED))

    async def pause(self) -> None:
        if self._sending is None:
            return
        if self._sending.done():
            print(f"    the upload ended early: {self._sending.result().refusal}", flush=True)
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        self._sending = None
        await asyncio.sleep(UPLOAD_REST_SECONDS)

    async def close(self) -> None:
        await self.pause()


class UploadProtocol(ServiceProtocol):
    """It stores nothing, so that the server forgets the stream when it is cancelled."""

    def __init__(self, url: str, language: str, job: UploadJob) -> None:
        options = {"store_audio": "false", "store_transcript": "false", "interim_results": "false"}
        super().__init__(url, language, model="accurate", **options)
        self._job = job
        self._end = 0.0  # of the last final

    def receive(self, message: Message, at: float, received: ReceivedText) -> bool:
        if message["type"] == "transcript.final":
            self._job.seconds += message["end"] - self._end
            self._end = message["end"]
        return super().receive(message, at, received)


class Figures:
    """All that belongs to one mode."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.first_partials: list[float] = []
        self.utterances = 0
        self.lost = 0
        self.seconds = 0.0
        self.cpu = 0.0
        self.waiting = 0.0
        self.job = 0.0
        self.late = 0.0

    def add_slot(self, slot: Slot) -> None:
        self.seconds += slot.end - slot.start
        self.cpu += slot.after.cpu - slot.before.cpu
        self.waiting += slot.after.waiting - slot.before.waiting
        self.job += slot.after.job - slot.before.job

    def percentile(self, rank: float) -> float:
        return float(np.percentile(self.latencies, rank)) if self.latencies else float("nan")

    def row(self, mode: str, base: "Figures", streams: int) -> list[str]:
        later = self.percentile(95) - base.percentile(95)
        ratio = self.percentile(95) / base.percentile(95)
        audio = self.seconds * streams
        return [
            mode,
            str(self.utterances),
            str(self.lost),
            *percentiles(self.latencies, 50, 95, 100),
            f"{self.percentile(50) / base.percentile(50):.2f}",
            f"{ratio:.2f}",
            f"{later:+.2f}",
            *percentiles(self.first_partials, 50, 95),
            f"{self.cpu / audio:.3f}",
            f"{self.waiting / audio:.3f}",
            f"{self.job / self.seconds:.1f}",
            f"{self.late:.1f}",
            "yes" if ratio <= LATER_RATIO and later <= LATER_SECONDS else "no",
        ]


class Bench:
    """One run on one stack."""

    def __init__(self, stack: Stack, found: Sequence[Clip], arguments: argparse.Namespace) -> None:
        self._stack = stack
        self._clips = found
        self._arguments = arguments
        self._language = found[0].language
        self._make_protocol = partial(
            ServiceProtocol, stack.ws_url, self._language, model="fast", interim_results=json.dumps(arguments.partials)
        )
        self._server = next(process.popen.pid for process in stack.processes if process.name == "server")

    async def warm_up(self) -> None:
        await run_streams(self._make_protocol, tracks(self._clips, 1, 10.0), meter(self._stack))

    async def run(self) -> dict[str, Figures]:
        """The figures of each mode."""
        modes: list[str] = self._arguments.modes
        async with self._jobs(modes) as jobs:
            spoken = tracks(self._clips, self._arguments.streams, self._length(modes))
            streams = [asyncio.create_task(self._stream(number, one)) for number, one in enumerate(spoken)]
            slots = await self._alternate(jobs, modes)
            received = await asyncio.gather(*streams)
        for one in received:
            if one.refusal:
                print(f"    a stream was not served to its end: {one.refusal}", flush=True)
        figures = _figures(modes, slots, spoken, received)
        for mode, job in jobs.items():
            figures[mode].late = job.late
        return figures

    def _length(self, modes: Sequence[str]) -> float:
        """Of the streams, in seconds."""
        rest = UPLOAD_REST_SECONDS if "upload" in modes else 0.0
        return float(self._arguments.rounds * (len(modes) * self._arguments.seconds + rest) + 2 * SETTLE_SECONDS)

    async def _stream(self, number: int, spoken: Track) -> ReceivedText:
        # Real streams do not start together, and their utterances do not end together.
        await asyncio.sleep(number * 0.73 % 2.0)
        return await stream(self._make_protocol(), spoken)

    async def _alternate(self, jobs: dict[str, Job], modes: Sequence[str]) -> list[Slot]:
        slots = []
        await asyncio.sleep(2 * SETTLE_SECONDS)
        for number in range(self._arguments.rounds):
            for mode in random.Random(number).sample(modes, len(modes)):
                slots.append(await self._slot(mode, jobs[mode]))
                self._stack.check()
            print(f"    round {number + 1} of {self._arguments.rounds}, {load()}", file=sys.stderr, flush=True)
        return slots

    async def _slot(self, mode: str, job: Job) -> Slot:
        start, before = time.monotonic(), self._counters(job)
        await job.resume()
        await asyncio.sleep(self._arguments.seconds)
        end, after = time.monotonic(), self._counters(job)
        await job.pause()
        return Slot(mode, start, end, before, after)

    def _counters(self, job: Job) -> Counters:
        return Counters(usage(self._server).cpu_seconds, waiting(self._server), job.seconds)

    @contextlib.asynccontextmanager
    async def _jobs(self, modes: Sequence[str]) -> AsyncIterator[dict[str, Job]]:
        jobs: dict[str, Job] = {}
        try:
            for mode in modes:
                jobs[mode] = await self._job(mode)
            yield jobs
        finally:
            await asyncio.gather(*(job.close() for job in jobs.values()))

    async def _job(self, mode: str) -> Job:
        if mode == "none":
            return NoJob()
        whole = np.concatenate(windows(self._clips, WINDOW_SECONDS))
        if mode == "upload":
            samples = np.tile(whole, int(UPLOAD_HOURS * 3600 * RATE / len(whole)) + 1)
            return UploadJob(self._stack.ws_url, self._language, samples)
        if mode == "worker":
            samples = np.tile(whole, int(WORKER_HOURS * 3600 * RATE / len(whole)) + 1)
            return await WorkerJob.start(self._stack, self._language, samples)
        return await ProcessJob.start(_command(self._arguments, mode))


def _command(arguments: argparse.Namespace, mode: str) -> list[str]:
    cache = os.environ.get("DALSTON_CACHE_DIR") or str(ROOT / ".dalston" / "cache")
    command = [sys.executable, str(Path(__file__).with_name("batch_job.py")), "--scheduling", mode]
    command += ["--weights", arguments.weights, "--language", arguments.language, "--cache-dir", cache]
    command += ["--window-seconds", str(arguments.window_seconds)]
    return command if arguments.manifest is None else [*command, "--manifest", str(arguments.manifest)]


def waiting(pid: int) -> float:
    """Seconds in which threads of a process were ready and had no CPU. Threads that have ended do not count."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += int((task / "schedstat").read_text().split()[1])
    return found / 1e9


def _figures(
    modes: Sequence[str], slots: Sequence[Slot], spoken: Sequence[Track], received: Sequence[ReceivedText]
) -> dict[str, Figures]:
    figures = {mode: Figures() for mode in modes}
    for slot in slots:
        figures[slot.mode].add_slot(slot)
    for track, text in zip(spoken, received, strict=True):
        for utterance, verdict in zip(track.utterances, judge_each(track, text), strict=True):
            for slot in slots:
                found = figures[slot.mode]
                if slot.counts(text.began + utterance.end):
                    found.latencies += verdict.latencies
                    found.utterances += 1
                    found.lost += verdict.lost
                if slot.counts(text.began + utterance.start):
                    found.first_partials += verdict.first_partials
    return figures


async def measure(arguments: argparse.Namespace, stack: Stack, found: Sequence[Clip]) -> None:
    bench = Bench(stack, found, arguments)
    await bench.warm_up()
    before = f"commit {commit()}; {load()}"
    figures = await bench.run()
    print(
        f"{machine()}; {before} before, {load()} after; {arguments.weights}, {arguments.streams} "
        f"streams, {'with' if arguments.partials else 'without'} partials; {arguments.rounds} rounds, "
        f"{arguments.seconds:g} s each; the job: windows of up to {arguments.window_seconds:g} s, {BEAMS} beams\n"
        f"\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}"
    )
    for mode, one in figures.items():
        print(f"| {' | '.join(one.row(mode, figures['none'], arguments.streams))} |", flush=True)


def _modes(text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(MODES):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    return found if "none" in found else ["none", *found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", type=_modes, default=list(DEFAULT_MODES), help=f"of {', '.join(MODES)}")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=18, help="from one change of the job to the next")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--window-seconds", type=float, default=WINDOW_SECONDS, help="of the job, at most")
    parser.add_argument("--manifest", type=Path, help="its clips of 2 to 15 s")
    parser.add_argument("--language", default="en")
    parser.add_argument("--weights", default="base", help="an offline name (tiny.en), a directory or a hub id")
    parser.add_argument("--partials", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    found = clips(arguments.manifest, arguments.language, 2, 15)
    with own_stack(arguments.weights) as stack:
        asyncio.run(measure(arguments, stack, found))


if __name__ == "__main__":
    main()
