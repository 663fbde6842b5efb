"""Live streams beside a batch job on the same machine: what the job costs them, by the way in which it is scheduled.

    python benchmarks/beside.py                                  4 streams of the sample recording: about 15 minutes
    python benchmarks/beside.py --streams 2 --rounds 2 --seconds 60
    python benchmarks/beside.py --modes none,idle,idle-pinned --manifest clips.tsv

The whole local stack serves real-time WebSocket streams with partials, as in `latency.py`, in windows of some seconds.
In one run windows without a job alternate with windows beside a job, in an order that rotates from round to round;
within a round all windows have the same speech. The job (`batch_job.py`) is a process of its own in a session of its
own, as the parts of the local stack are, with one thread of the model:

    normal          the default class, nice 0
    nice            nice 19
    idle            nice 19 and SCHED_IDLE
    idle-group      the same, and the lowest weight for its autogroup
    idle-pinned     the same, on the last CPU only
    upload          no process: the same speech through the server's own queue, as a stream with a beam size of five
                    that is sent as fast as the server accepts it

A job in the default class or an upload shows what scheduling saves. CPU is that of the server per second of live audio,
so for `upload` it includes the job. Waiting is the time in which a thread of the server was ready and had no CPU. Both
tell a job that takes the CPU from one that slows it down by its use of caches and memory.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from batch_job import BEAMS, SCHEDULING, WINDOW_SECONDS, windows
from latency import percentiles
from live import Message, ServiceProtocol, run_streams, stream, tracks
from own import meter, own_stack
from provenance import ROOT, commit, load, machine
from scoring import ReceivedText, Verdict
from speech import RATE, Clip, Track, clips
from usage import usage

from stack.supervisor import Stack

MODES = ("none", *SCHEDULING, "upload")
DEFAULT_MODES = ("none", "normal", "nice", "idle", "idle-group", "upload")
READY_SECONDS = 60.0
UPLOAD_SPEED = 30.0
"""Times real time: more than the server can transcribe."""
UPLOAD_HOURS = 0.5
"""More than it can transcribe in a window."""
REST_SHARE = 0.05
"""Of a CPU: a server that uses less has finished its work."""
REST_SECONDS = 30.0
LATER_RATIO = 1.1
LATER_SECONDS = 0.1
HEADER = [
    "job",
    "finals",
    "lost",
    "p50 s",
    "p95 s",
    "max s",
    "p95, of no job (by round)",
    "p95, s later",
    "first partial p50 s",
    "p95 s",
    "CPU s per audio s",
    "waiting s per audio s",
    "job: audio s per s",
    "within the bar",
]


@dataclass(frozen=True)
class Window:
    """The result of one window, or of several with the same job."""

    verdict: Verdict = field(default_factory=Verdict)
    audio_seconds: float = 0.0
    """Of the live streams."""
    seconds: float = 0.0
    """How long it lasted."""
    cpu_seconds: float = 0.0
    """Of the server."""
    waiting_seconds: float = 0.0
    """In which threads of the server were ready and had no CPU."""
    job_seconds: float = 0.0
    """Of audio that the job has transcribed."""

    def __add__(self, other: "Window") -> "Window":
        return Window(
            self.verdict + other.verdict,
            self.audio_seconds + other.audio_seconds,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.waiting_seconds + other.waiting_seconds,
            self.job_seconds + other.job_seconds,
        )

    @property
    def p95(self) -> float:
        return float(np.percentile(self.verdict.latencies, 95)) if self.verdict.latencies else float("nan")


class Progress:
    """The audio that a job has transcribed, over time."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self.ready = asyncio.Event()
        """Set when the job transcribes."""

    def add(self, seconds: float) -> None:
        self._seconds += seconds

    def reach(self, second: float) -> None:
        self._seconds = max(self._seconds, second)

    @property
    def seconds(self) -> float:
        return self._seconds


class UploadProtocol(ServiceProtocol):
    """A stream that stores nothing, so that the server forgets it when it is cancelled."""

    def __init__(self, base_url: str, language: str, progress: Progress) -> None:
        options = {"store_audio": "false", "store_transcript": "false", "interim_results": "false"}
        super().__init__(base_url, language, model="accurate", **options)
        self._progress = progress

    def receive(self, message: Message, at: float, received: ReceivedText) -> bool:
        if message["type"] == "transcript.final":
            self._progress.reach(message["end"])
            self._progress.ready.set()
        return super().receive(message, at, received)


class Bench:
    """Windows on one stack."""

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

    async def run(self, mode: str, number: int) -> Window:
        """One window beside a job, with the speech of a round."""
        await self._rest()
        count = self._arguments.streams
        spoken = tracks(self._clips, count * (number + 1), self._arguments.seconds)[-count:]
        async with self._job(mode) as progress:
            began, cpu, waited, done = time.monotonic(), self._cpu(), waiting(self._server), progress.seconds
            outcome = await run_streams(self._make_protocol, spoken, meter(self._stack))
            window = Window(
                outcome.verdict,
                sum(one.seconds for one in spoken),
                time.monotonic() - began,
                self._cpu() - cpu,
                waiting(self._server) - waited,
                progress.seconds - done,
            )
        for refusal in outcome.refusals:
            print(f"    a stream was not served to its end: {refusal}")
        self._stack.check()
        return window

    def _cpu(self) -> float:
        return usage(self._server).cpu_seconds

    async def _rest(self) -> None:
        """Waits until the server has finished the work of the window before."""
        until = time.monotonic() + REST_SECONDS
        while time.monotonic() < until:
            before = self._cpu()
            await asyncio.sleep(1.0)
            if self._cpu() - before < REST_SHARE:
                return

    @contextlib.asynccontextmanager
    async def _job(self, mode: str) -> AsyncIterator[Progress]:
        """A job while the block runs. It has begun to transcribe when the block begins."""
        progress = Progress()
        if mode == "none":
            yield progress
            return
        working = asyncio.create_task(self._upload(progress) if mode == "upload" else self._process(mode, progress))
        try:
            ready = asyncio.create_task(progress.ready.wait())
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.wait([working, ready], return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            yield progress
            if working.done():
                raise SystemExit(f"the job {mode} ended before its window: {working.exception() or working.result()}")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _upload(self, progress: Progress) -> str | None:
        pieces = windows(self._clips, WINDOW_SECONDS)
        whole = np.concatenate(pieces)
        samples = np.tile(whole, int(UPLOAD_HOURS * 3600 * RATE / len(whole)) + 1)
        protocol = UploadProtocol(self._stack.ws_url, self._language, progress)
        received = await stream(protocol, Track(samples, (), self._language), UPLOAD_SPEED)
        return received.refusal

    async def _process(self, mode: str, progress: Progress) -> str:
        command = _command(self._arguments, mode)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                progress.add(json.loads(line).get("audio_seconds", 0.0))
                progress.ready.set()
            return f"exit status {await process.wait()}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


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


def ratios(found: Sequence[Window], without: Sequence[Window]) -> str:
    """p95 divided by that without a job: of all rounds together, and the range by round."""
    whole = sum(found, Window()).p95 / sum(without, Window()).p95
    each = [one.p95 / other.p95 for one, other in zip(found, without, strict=True)]
    return f"{whole:.2f} ({min(each):.2f} to {max(each):.2f})"


def row(mode: str, found: Sequence[Window], without: Sequence[Window]) -> list[str]:
    window, base = sum(found, Window()), sum(without, Window()).p95
    verdict = window.verdict
    later = window.p95 - base
    within = window.p95 <= LATER_RATIO * base and later <= LATER_SECONDS
    return [
        mode,
        str(verdict.utterances),
        str(verdict.lost),
        *percentiles(verdict.latencies, 50, 95, 100),
        ratios(found, without),
        f"{later:+.2f}",
        *percentiles(verdict.first_partials, 50, 95),
        f"{window.cpu_seconds / window.audio_seconds:.3f}",
        f"{window.waiting_seconds / window.audio_seconds:.3f}",
        f"{window.job_seconds / window.seconds:.1f}",
        "yes" if within else "no",
    ]


async def measure(arguments: argparse.Namespace, stack: Stack, found: Sequence[Clip]) -> None:
    bench = Bench(stack, found, arguments)
    await bench.warm_up()
    print(
        f"{machine()}; commit {commit()}; {load()} before; {arguments.weights}, {arguments.streams} streams, "
        f"{'with' if arguments.partials else 'without'} partials, {arguments.rounds} rounds of windows of "
        f"{arguments.seconds:g} s; the job: windows of up to {arguments.window_seconds:g} s, greedy and {BEAMS} beams",
        flush=True,
    )
    modes: list[str] = arguments.modes
    results: dict[str, list[Window]] = {mode: [] for mode in modes}
    for number in range(arguments.rounds):
        first = number * len(modes) // arguments.rounds
        for mode in modes[first:] + modes[:first]:
            window = await bench.run(mode, number)
            results[mode].append(window)
            print(f"    round {number + 1}, {mode}: p95 {window.p95:.2f} s, {load()}", file=sys.stderr, flush=True)
    print(f"\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for mode in modes:
        print(f"| {' | '.join(row(mode, results[mode], results['none']))} |")
    print(f"\n{load()} after")


def _modes(text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(MODES):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    return found if "none" in found else ["none", *found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", type=_modes, default=list(DEFAULT_MODES), help=f"of {', '.join(MODES)}")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30, help="of each stream in each window")
    parser.add_argument("--rounds", type=int, default=3)
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
