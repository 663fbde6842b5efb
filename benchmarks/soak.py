"""Hours of sessions in minutes: whether memory and latency stay flat over the number of sessions and over their length.

    python benchmarks/soak.py                                       4 h in sessions of 5 minutes, then 4 h in one
    python benchmarks/soak.py --hours 0.5 --long-hours 0.5 --weights tiny.en

The whole local stack with the real models and storage. The sessions are sent as concurrent streams, each at `--speed`
times real time; the long one alone, at `--long-speed`. A row is a stretch of the run: the memory of every part at its
end, and the latency from sending the end of an utterance to the arrival of its last text; the silence that ends an
utterance takes 1/speed of its time. On a machine that is too slow for the speed, latency grows with the length of a
session: choose a lower speed then.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from latency import percentiles
from live import ServiceProtocol, run_streams, stream
from own import PARTS, meter, own_stack
from provenance import commit, load, machine
from scoring import Verdict, judge_each
from speech import Clip, clips, track
from usage import by_part

from stack.supervisor import Stack

HOUR = 3600.0
LONGEST_SECONDS = 86_400
"""The longest session of the server."""
HEADER = ["h of audio", "minutes", "utterances", "lost", "WER %", "p50 s", "p95 s", f"memory MiB ({' + '.join(PARTS)})"]


class Soak:
    """Runs loads on one stack, and prints a table for each."""

    def __init__(self, stack: Stack, found: Sequence[Clip], rows: int) -> None:
        self._stack = stack
        self._clips = found
        self._rows = rows
        self._make_protocol = partial(ServiceProtocol, stack.ws_url, found[0].language, model="fast")

    async def warm_up(self) -> None:
        await self._concurrently(2, 0.5, 2.0)

    async def many(self, hours: float, minutes: float, count: int, speed: float) -> None:
        """Sessions of some minutes, `count` at a time, round after round."""
        rounds = max(1, round(hours * 60 / minutes / count / self._rows))
        print(f"\nSessions of {minutes:g} minutes, {count} at a time, at {speed:g} times real time:\n")
        self._head()
        began = time.monotonic()
        for number in range(1, self._rows + 1):
            verdict = Verdict()
            for _ in range(rounds):
                verdict += await self._concurrently(count, minutes, speed)
            self._row(number * rounds * count * minutes / 60, time.monotonic() - began, verdict, self._memory())

    async def one(self, hours: float, speed: float) -> None:
        """One session; each row is an equal share of it, and all are printed when it has ended."""
        spoken = track(self._clips, hours * HOUR, seed=0)
        print(f"\nOne session of {spoken.seconds / HOUR:.2f} h, at {speed:g} times real time:\n", flush=True)
        streaming = asyncio.create_task(stream(self._make_protocol(), spoken, speed))
        share = spoken.seconds / self._rows
        memory = []
        for _ in range(self._rows):
            await asyncio.sleep(share / speed)
            memory.append(self._memory())
        received = await streaming
        shares = [Verdict()] * self._rows
        for utterance, verdict in zip(spoken.utterances, judge_each(spoken, received, speed), strict=True):
            shares[int(utterance.end / share)] += verdict
        self._head()
        for number, (verdict, used) in enumerate(zip(shares, memory, strict=True), 1):
            self._row(number * share / HOUR, number * share / speed, verdict, used)
        if received.refusal:
            print(f"\nIt was not served to its end: {received.refusal}")

    async def _concurrently(self, count: int, minutes: float, speed: float) -> Verdict:
        spoken = [track(self._clips, minutes * 60, seed) for seed in range(count)]
        outcome = await run_streams(self._make_protocol, spoken, meter(self._stack), speed)
        for refusal in outcome.refusals:
            print(f"    a session was not served to its end: {refusal}")
        return outcome.verdict

    def _memory(self) -> str:
        self._stack.check()
        used = meter(self._stack)
        used.stop()
        return by_part(used.memory_mib, 0)

    def _head(self) -> None:
        print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)

    def _row(self, audio_hours: float, seconds: float, verdict: Verdict, memory: str) -> None:
        cells = [
            f"{audio_hours:.2f}",
            f"{seconds / 60:.1f}",
            str(verdict.utterances),
            str(verdict.lost),
            f"{100 * verdict.errors.rate:.1f}",
            *percentiles(verdict.latencies, 50, 95),
            memory,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


async def measure(arguments: argparse.Namespace, stack: Stack) -> None:
    soak = Soak(stack, clips(arguments.manifest, arguments.language, 2, 15), arguments.rows)
    print(f"{machine()}; commit {commit()}; {load()}; {arguments.weights}", flush=True)
    await soak.warm_up()
    if arguments.hours:
        await soak.many(arguments.hours, arguments.minutes, arguments.streams, arguments.speed)
    if arguments.long_hours:
        await soak.one(arguments.long_hours, arguments.long_speed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4, help="of audio, in many sessions; 0 for none")
    parser.add_argument("--minutes", type=float, default=5, help="of each session")
    parser.add_argument("--streams", type=int, default=4, help="concurrent sessions")
    parser.add_argument("--speed", type=float, default=3)
    parser.add_argument("--long-hours", type=float, default=4, help="of one session; 0 for none")
    parser.add_argument("--long-speed", type=float, default=8)
    parser.add_argument("--rows", type=int, default=8, help="of each table")
    parser.add_argument("--manifest", type=Path, help="its clips of 2 to 15 s")
    parser.add_argument("--language", default="en")
    parser.add_argument("--weights", default="base", help="an offline name (tiny.en), a directory or a hub id")
    arguments = parser.parse_args()
    with own_stack(arguments.weights, max_session_seconds=str(LONGEST_SECONDS)) as stack:
        asyncio.run(measure(arguments, stack))


if __name__ == "__main__":
    main()
