"""Live streams against the whole local stack: how late the text comes, how right it is, and what it costs.

    python benchmarks/latency.py                        1, 2 and 4 streams of the sample recording
    python benchmarks/latency.py --streams 4,8 --seconds 120
    python benchmarks/latency.py --partials             with text before the finals
    python benchmarks/latency.py --manifest clips.tsv   other speech: columns file, language, reference

Every stream is a WebSocket through Envoy, paced in real time, with storage on. Latency runs from the end of speech, as
the detector heard it, to the arrival of its final; the silence that ends an utterance (0.5 s) is part of it. CPU and
memory are those of the server, the bridge and Envoy, without the client.
"""

import argparse
import asyncio
import csv
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import jiwer
import numpy as np
import psutil
import soundfile
from provenance import commit, machine
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from websockets.asyncio.client import ClientConnection, connect

from stack.ports import free_port
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000
CHUNK_SECONDS = 0.1
PAUSE_SECONDS = 1.0
MARGIN_SECONDS = 0.2
"""A final begins so much before the speech, and ends so much after it."""
STORED = {"store_audio": "true", "store_transcript": "true"}
PARTS = ("server", "bridge", "envoy")
NORMALIZERS = {"en": EnglishTextNormalizer({})}


@dataclass(frozen=True)
class Clip:
    """An utterance and what is said in it."""

    samples: np.ndarray
    text: str
    language: str


@dataclass
class Result:
    """What one stream's client saw."""

    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    """From the beginning of each utterance's speech to its first partial."""
    transcript: str = ""
    reference: str = ""
    language: str = "en"


def sample_clips() -> list[Clip]:
    samples, _ = soundfile.read(ROOT / "samples/sense-and-sensibility.flac", dtype="int16")
    return [Clip(samples, (ROOT / "samples/sense-and-sensibility.txt").read_text(), "en")]


def manifest_clips(manifest: Path, language: str) -> list[Clip]:
    with manifest.open() as file:
        rows = [
            row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row["language"] == language
        ]
    clips = []
    for row in (row for row in rows if row["language"] == language):
        samples, rate = soundfile.read(manifest.parent / row["file"], dtype="int16")
        if rate == RATE and 2 * RATE < len(samples) < 15 * RATE:
            clips.append(Clip(samples, row["reference"], language))
    return clips


def track(clips: list[Clip], seconds: float, seed: int) -> tuple[np.ndarray, str]:
    """Clips in a shuffled order with pauses between, until `seconds` are full."""
    order = random.Random(seed).sample(clips, len(clips))
    pause = np.zeros(int(PAUSE_SECONDS * RATE), np.int16)
    pieces, texts = [pause], []
    for clip in itertools.cycle(order):
        pieces += [clip.samples, pause]
        texts.append(clip.text)
        if sum(map(len, pieces)) >= seconds * RATE:
            return np.concatenate(pieces), " ".join(texts)
    raise ValueError("no clips")


async def stream(stack: Stack, samples: np.ndarray, result: Result, parameters: dict[str, str], delay: float) -> None:
    await asyncio.sleep(delay)
    url = f"{stack.ws_url}/v1/audio/transcriptions/stream?{urlencode(parameters)}"
    async with connect(url, proxy=None) as socket:
        await socket.recv()
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(socket, samples, started))
            tasks.create_task(receive(socket, result, started))


async def send(socket: ClientConnection, samples: np.ndarray, started: float) -> None:
    step = int(CHUNK_SECONDS * RATE)
    for position in range(0, len(samples), step):
        # A chunk can be sent when its last sample has been spoken.
        await asyncio.sleep(started + (position + step) / RATE - time.monotonic())
        await socket.send(samples[position : position + step].tobytes())
    await socket.send('{"type":"end"}')


async def receive(socket: ClientConnection, result: Result, started: float) -> None:
    told: set[float] = set()
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "transcript.partial" and message["start"] not in told:
            told.add(message["start"])
            result.firsts.append(time.monotonic() - started - message["start"] - MARGIN_SECONDS)
        elif message["type"] == "transcript.final":
            result.latencies.append(time.monotonic() - started - message["end"] + MARGIN_SECONDS)
        elif message["type"] == "session.end":
            result.transcript = message["transcript"]


@dataclass
class Usage:
    """What the parts used while a block ran."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)


@contextmanager
def measured(stack: Stack) -> Iterator[Usage]:
    usage = Usage()
    before = {part: cpu_and_memory(stack, part)[0] for part in PARTS}
    yield usage
    for part in PARTS:
        cpu, memory = cpu_and_memory(stack, part)
        usage.cpu_seconds[part], usage.memory_bytes[part] = cpu - before[part], memory


def cpu_and_memory(stack: Stack, part: str) -> tuple[float, int]:
    (pid,) = (process.popen.pid for process in stack.processes if process.name == part)
    root = psutil.Process(pid)
    processes = [root, *root.children(recursive=True)]
    cpu = sum(times.user + times.system for times in (process.cpu_times() for process in processes))
    return cpu, sum(process.memory_info().rss for process in processes)


def error_rate(results: list[Result]) -> float:
    normalizers = [NORMALIZERS.get(result.language) or BasicTextNormalizer() for result in results]
    references = [normalize(result.reference) for normalize, result in zip(normalizers, results, strict=True)]
    transcripts = [normalize(result.transcript) for normalize, result in zip(normalizers, results, strict=True)]
    return float(jiwer.wer(references, transcripts))


async def measure(stack: Stack, clips: list[Clip], count: int, seconds: float, parameters: dict[str, str]) -> list[str]:
    """A row of the table: `count` streams of about `seconds` each."""
    results = [Result(language=clips[0].language) for _ in range(count)]
    audio_seconds = 0.0
    with measured(stack) as usage:
        async with asyncio.TaskGroup() as tasks:
            for number, result in enumerate(results):
                samples, result.reference = track(clips, seconds, seed=number)
                audio_seconds += len(samples) / RATE
                # Streams do not start together in life, so that their utterances do not end together either.
                delay = number * 7.3 % (2.0 * count)
                tasks.create_task(stream(stack, samples, result, parameters, delay))
    latencies = sorted(latency for result in results for latency in result.latencies)
    firsts = [first for result in results for first in result.firsts]
    p50, p95 = np.percentile(latencies, [50, 95])
    cpu = {part: usage.cpu_seconds[part] / audio_seconds for part in PARTS}
    memory = {part: usage.memory_bytes[part] / 2**20 for part in PARTS}
    return [
        str(count),
        str(len(latencies)),
        f"{p50:.2f}",
        f"{p95:.2f}",
        f"{latencies[-1]:.2f}",
        " / ".join(f"{value:.2f}" for value in np.percentile(firsts, [50, 95])) if firsts else "",
        f"{100 * error_rate(results):.1f}",
        f"{sum(cpu.values()):.3f} ({' + '.join(f'{cpu[part]:.3f}' for part in PARTS)})",
        f"{sum(memory.values()):.0f} ({' + '.join(f'{memory[part]:.0f}' for part in PARTS)})",
    ]


HEADER = [
    "streams",
    "finals",
    "p50 s",
    "p95 s",
    "max s",
    "first partial p50 / p95 s",
    "WER %",
    f"CPU s per audio s ({' + '.join(PARTS)})",
    f"memory MiB ({' + '.join(PARTS)})",
]


async def run(arguments: argparse.Namespace, home: Path) -> None:
    # More streams than the machine can take are what is asked about: none of them is to be refused.
    os.environ.setdefault("DALSTON_MAX_LAG_SECONDS", "1000")
    clips = manifest_clips(arguments.manifest, arguments.language) if arguments.manifest else sample_clips()
    parameters = {"language": arguments.language, "model": arguments.model} | STORED
    parameters["interim_results"] = "true" if arguments.partials else "false"
    with running_stack(StackSettings(home=home, port=free_port(), cache_dir=ROOT / ".dalston" / "cache")) as stack:
        # The first utterances pay for warm-up; they are not what is asked about.
        await measure(stack, clips, 1, 10, parameters)
        print(f"{machine()}; commit {commit()}; model {arguments.model}; {arguments.seconds:g} s a stream\n")
        print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
        for count in arguments.streams:
            row = await measure(stack, clips, count, arguments.seconds, parameters)
            print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--model", default="fast")
    parser.add_argument("--partials", action="store_true")
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(parser.parse_args(), Path(home)))


if __name__ == "__main__":
    main()
