"""The same live streams against this service and its peers: latency, lost text, errors, CPU and memory.

    python benchmarks/peers.py                                            this service alone
    python benchmarks/peers.py --whisperlive VENV/bin/python --whisperlivekit VENV/bin/python
    python benchmarks/peers.py --streams 1,4 --seconds 80 --weights base --manifest clips.tsv

The peers are no dependencies of this project; each needs its own virtual environment (benchmarks/README.md has
the commands). All of them run at the same time and are measured in turns, each with its own defaults and the same
CTranslate2 weights; WhisperLiveKit with LocalAgreement, the policy that works with these. This service has partials
enabled, as the peers have, and stores the sessions, which they do not.

Only final text counts: in this service a `transcript.final`, in WhisperLive a completed segment, in WhisperLiveKit a
word outside its buffer. Latency runs from the end of an utterance in the recording to the arrival of its last correct
word; an utterance is lost if fewer than half of its words arrive. CPU time is that of the whole service, storage
included, until the last audio has been sent.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from latency import percentiles
from live import Message, Outcome, Refused, ServiceProtocol, run_streams, tracks
from own import own_stack, pids
from provenance import commit, load, machine
from scoring import ReceivedText
from speech import SAMPLE, Clip, Samples, clips
from usage import Meter
from weights import Weights

from stack.ports import free_port
from stack.process import running

READY_SECONDS = 300.0
WARM_SECONDS = 10.0
INSTALLED = {"whisperlive": "whisper-live==0.10.0", "whisperlivekit": "whisperlivekit==0.2.26"}
HEADER = ["service", "streams", "utterances", "lost", "p50 s", "p95 s", "max s", "WER %", "CPU s per audio s", "MiB"]


class WhisperLive(ServiceProtocol):
    """Sends its last segments repeatedly; completed ones no longer change."""

    # As long as its own client waits: it does not transcribe the rest of the audio when a stream ends.
    linger_seconds = 15.0
    last_message = b"END_OF_AUDIO"

    def __init__(self, base_url: str, language: str) -> None:
        super().__init__(base_url, language)
        self._completed: set[tuple[str, str]] = set()

    @property
    def url(self) -> str:
        return self.base_url

    @property
    def first_message(self) -> str:
        # The server has one model.
        settings = {"language": self.language, "task": "transcribe", "model": "custom", "use_vad": True}
        return json.dumps({"uid": str(uuid.uuid4()), **settings})

    def encode(self, samples: Samples) -> bytes:
        return (samples.astype(np.float32) / 32768).tobytes()

    def is_ready(self, message: Message) -> bool:
        if "status" in message:
            raise Refused(f"{message['status']}: {message['message']}")
        return message.get("message") == "SERVER_READY"

    def receive(self, message: Message, at: float, received: ReceivedText) -> bool:
        segments = message.get("segments", ())
        self.is_complete = all(segment["completed"] for segment in segments)
        for segment in segments:
            known = segment["start"], segment["text"]
            if segment["completed"] and known not in self._completed:
                self._completed.add(known)
                received.add(at, segment["text"])
        return message.get("message") == "DISCONNECT"


class WhisperLiveKit(ServiceProtocol):
    """Sends the whole transcript in every message."""

    last_message = b""

    @property
    def url(self) -> str:
        return f"{self.base_url}/asr?language={self.language}"

    def is_ready(self, message: Message) -> bool:
        if message.get("type") == "error":
            raise Refused(message["error"])
        return message.get("type") == "config"

    def receive(self, message: Message, at: float, received: ReceivedText) -> bool:
        if "lines" in message:
            received.replace(at, " ".join(line["text"].strip() for line in message["lines"] if line["text"]))
        return message.get("type") == "ready_to_stop"


@dataclass(frozen=True)
class Service:
    """A running service."""

    name: str
    make_protocol: Callable[[], ServiceProtocol]
    meter: Callable[[], Meter]


@contextmanager
def dalston(weights: Weights, language: str) -> Iterator[Service]:
    with own_stack(weights.name) as stack:
        make_protocol = partial(ServiceProtocol, stack.ws_url, language, model="fast", interim_results="true")
        yield Service("dalston", make_protocol, lambda: Meter({"all": pids(stack)}))


WHISPERLIVE = """
import sys
from whisper_live.server import TranscriptionServer
port, model, most = sys.argv[1:]
TranscriptionServer().run("127.0.0.1", port=int(port), backend="faster_whisper", single_model=True,
    faster_whisper_custom_model_path=model, max_clients=int(most), max_connection_time=86400)
"""
"""The equivalent of its run_server.py, which is not in its wheel."""


@contextmanager
def whisperlive(python: Path, weights: Weights, language: str, most: int) -> Iterator[Service]:
    port = free_port()
    command = [str(python), "-c", WHISPERLIVE, str(port), str(weights.ctranslate2()), str(most)]
    with server("WhisperLive", command, partial(listens, port)) as pid:
        make_protocol = partial(WhisperLive, f"ws://127.0.0.1:{port}", language)
        yield Service("WhisperLive", make_protocol, lambda: Meter({"all": [pid]}))


@contextmanager
def whisperlivekit(python: Path, weights: Weights, language: str, _: int) -> Iterator[Service]:
    port = free_port()
    program = python.with_name("whisperlivekit-server")
    options = {
        "host": "127.0.0.1",
        "port": str(port),
        "model_dir": str(weights.ctranslate2()),
        "backend": "faster-whisper",
        "backend-policy": "localagreement",
        "language": language,
        "warmup-file": str(SAMPLE.with_suffix(".flac")),
    }
    command = [str(program), "--pcm-input", *(word for name, value in options.items() for word in (f"--{name}", value))]
    with server("WhisperLiveKit", command, partial(is_healthy, port)) as pid:
        make_protocol = partial(WhisperLiveKit, f"ws://127.0.0.1:{port}", language)
        yield Service("WhisperLiveKit", make_protocol, lambda: Meter({"all": [pid]}))


@contextmanager
def server(name: str, command: Sequence[str], ready: Callable[[], bool]) -> Iterator[int]:
    """Runs a peer. Yields its process id when it is ready."""
    # The weights are local: a download from a hub would not be comparable.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running(name, command, log=log, env=environment, cwd=Path(folder)) as process:
            process.wait_until(ready, READY_SECONDS)
            yield process.popen.pid


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def is_healthy(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return bool(httpx.get(f"http://127.0.0.1:{port}/health", timeout=2, trust_env=False).json()["ready"])
    return False


def services(
    pythons: Mapping[str, Path | None], weights: Weights, language: str, most: int, started: ExitStack
) -> list[Service]:
    """Starts the available services, and prints how to install each other one."""
    found = [started.enter_context(dalston(weights, language))]
    for name, start in (("whisperlive", whisperlive), ("whisperlivekit", whisperlivekit)):
        python = pythons[name]
        if python is None:
            how = "as described in benchmarks/README.md"
            print(f"{name} is left out: install {INSTALLED[name]} {how}, then --{name} PYTHON")
        else:
            found.append(started.enter_context(start(python.absolute(), weights, language, most)))
    return found


def row(service: Service, count: int, outcome: Outcome) -> str:
    verdict = outcome.verdict
    cells = [
        service.name,
        str(count),
        str(verdict.utterances),
        str(verdict.lost),
        *percentiles(verdict.latencies, 50, 95, 100),
        f"{100 * verdict.errors.rate:.1f}",
        outcome.cpu,
        outcome.memory,
    ]
    return f"| {' | '.join(cells)} |"


async def compare(found: Sequence[Service], speech: Sequence[Clip], counts: Sequence[int], seconds: float) -> None:
    for service in found:
        await run_streams(service.make_protocol, tracks(speech, 1, WARM_SECONDS), service.meter())
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for count in counts:
        for service in found:
            outcome = await run_streams(service.make_protocol, tracks(speech, count, seconds), service.meter())
            print(row(service, count, outcome), flush=True)
            for refusal in outcome.refusals:
                print(f"    a stream of {service.name} was not served to its end: {refusal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4])
    parser.add_argument("--seconds", type=float, default=80)
    parser.add_argument("--manifest", type=Path, help="its clips of 2 to 15 s")
    parser.add_argument("--language", default="en")
    parser.add_argument("--weights", default="tiny.en", help="an offline name (base) or a CTranslate2 directory")
    for name, requirement in INSTALLED.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PYTHON", help=f"that has {requirement} installed")
    arguments = parser.parse_args()
    speech = clips(arguments.manifest, arguments.language, 2, 15)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
        weights = Weights(arguments.weights, Path(folder))
        pythons = {name: getattr(arguments, name) for name in INSTALLED}
        found = services(pythons, weights, arguments.language, max(arguments.streams) + 1, started)
        seconds = arguments.seconds
        print(f"{machine()}; commit {commit()}; {load()}; {arguments.weights}; {seconds:g} s a stream\n", flush=True)
        asyncio.run(compare(found, speech, arguments.streams, seconds))


if __name__ == "__main__":
    main()
