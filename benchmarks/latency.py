"""Live streams against the whole local stack: latency, accuracy, CPU time and memory.

    python benchmarks/latency.py                                 1, 2 and 4 streams of the sample recording
    python benchmarks/latency.py --streams 4,8 --seconds 120
    python benchmarks/latency.py --manifest clips.tsv            other speech: columns file, language, reference
    python benchmarks/latency.py --weights tiny.en --no-partials
    python benchmarks/latency.py --until 1.5                     the most streams with p95 within 1.5 s

Every stream is a WebSocket through Envoy, sent in real time and stored. The latency of a final runs from the end of an
utterance in the recording to the arrival of its last text; the 0.5 s of silence that end an utterance are part of it.
The latency of the first partial runs from the start of the utterance; the number of partials is per utterance. An
utterance is lost when fewer than half of its words arrive. CPU time and memory are those of all parts, storage
included, without the client, until the last audio has been sent.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from live import Outcome, ServiceProtocol, run_streams, tracks
from own import PARTS, meter, own_stack
from provenance import commit, load, machine
from speech import Clip, clips

from stack.supervisor import Stack

WARM_SECONDS = 10.0
MOST_STREAMS = 256
HEADER = [
    "streams",
    "utterances",
    "lost",
    "p50 s",
    "p95 s",
    "max s",
    "first partial p50 s",
    "p95 s",
    "partials",
    "WER %",
    f"CPU s per audio s ({' + '.join(PARTS)})",
    f"memory MiB ({' + '.join(PARTS)})",
]


def percentiles(seconds: Sequence[float], *ranks: float) -> list[str]:
    return [f"{found:.2f}" for found in np.percentile(seconds, ranks)] if seconds else ["-"] * len(ranks)


def row(count: int, outcome: Outcome) -> list[str]:
    verdict = outcome.verdict
    return [
        str(count),
        str(verdict.utterances),
        str(verdict.lost),
        *percentiles(verdict.latencies, 50, 95, 100),
        *percentiles(verdict.first_partials, 50, 95),
        f"{verdict.partials / max(1, verdict.utterances):.1f}",
        f"{100 * verdict.errors.rate:.1f}",
        outcome.cpu,
        outcome.memory,
    ]


class Bench:
    """Runs on one stack, each a row of the table."""

    def __init__(self, stack: Stack, found: Sequence[Clip], seconds: float, options: dict[str, str]) -> None:
        self._make_protocol = partial(ServiceProtocol, stack.ws_url, found[0].language, **options)
        self._stack = stack
        self._clips = found
        self._seconds = seconds

    async def warm_up(self) -> None:
        """Transcribes some utterances that are not measured, because the first ones include set-up."""
        await run_streams(self._make_protocol, tracks(self._clips, 1, WARM_SECONDS), meter(self._stack))

    async def run(self, count: int) -> Outcome:
        outcome = await run_streams(self._make_protocol, tracks(self._clips, count, self._seconds), meter(self._stack))
        print(f"| {' | '.join(row(count, outcome))} |", flush=True)
        for refusal in outcome.refusals:
            print(f"    a stream was not served to its end: {refusal}")
        self._stack.check()
        return outcome

    async def most(self, bound: float, start: int) -> int:
        """The most streams with p95 within `bound`, none lost and none refused, found by doubling and bisection."""
        good, bad = 0, start
        while bad <= MOST_STREAMS and within(await self.run(bad), bound):
            good, bad = bad, 2 * bad
        while bad - good > max(1, good // 8):
            middle = (good + bad) // 2
            if within(await self.run(middle), bound):
                good = middle
            else:
                bad = middle
        return good


def within(outcome: Outcome, bound: float) -> bool:
    verdict = outcome.verdict
    return not outcome.refusals and not verdict.lost and bool(np.percentile(verdict.latencies, 95) <= bound)


async def measure(arguments: argparse.Namespace, stack: Stack, found: Sequence[Clip]) -> None:
    options = {"model": arguments.model, "interim_results": json.dumps(arguments.partials)}
    bench = Bench(stack, found, arguments.seconds, options)
    await bench.warm_up()
    print(
        f"{machine()}; commit {commit()}; {load()}; {arguments.weights}, model {arguments.model}, "
        f"{'with' if arguments.partials else 'without'} partials; {arguments.seconds:g} s a stream\n"
    )
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    if arguments.until is None:
        for count in arguments.streams:
            await bench.run(count)
    else:
        most = await bench.most(arguments.until, arguments.streams[0])
        print(f"\nThe most streams with p95 within {arguments.until:g} s and nothing lost: {most}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--manifest", type=Path, help="its clips of 2 to 15 s")
    parser.add_argument("--language", default="en")
    parser.add_argument("--weights", default="base", help="an offline name (tiny.en), a directory or a hub id")
    parser.add_argument("--model", default="fast")
    parser.add_argument("--partials", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--until", type=float, metavar="SECONDS", help="find the most streams; --streams is the start")
    arguments = parser.parse_args()
    found = clips(arguments.manifest, arguments.language, 2, 15)
    with own_stack(arguments.weights) as stack:
        asyncio.run(measure(arguments, stack, found))


if __name__ == "__main__":
    main()
