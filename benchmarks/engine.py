"""Compares the engine with others, utterance by utterance: CPU time and word error rate with the same weights.

    python benchmarks/engine.py                                  the five sentences of the sample recording
    python benchmarks/engine.py --manifest clips.tsv             columns: file (16 kHz mono), language, reference
    python benchmarks/engine.py --manifest clips.tsv --limit 100 --weights tiny.en --language en
    python benchmarks/engine.py --peers-python VENV/bin/python   with faster-whisper and whisper.cpp

Those two are no dependencies of this project. They are left out unless a virtual environment has them:

    python3 -m venv VENV && VENV/bin/pip install faster-whisper==1.2.1 pywhispercpp==1.5.1

Every engine runs in its own process and receives one utterance at a time; the engines take turns, utterance by
utterance and in rotating order, so that other load on the machine affects all of them alike. CPU time is that of the
whole process during the utterance. Peers decode greedily and once, without timestamps, unless their name differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contender import CONTENDERS, MODULES
from provenance import commit, load, machine
from scoring import Errors, errors
from speech import Clip, clips, spread
from weights import LeftOut, Weights

from server.inference.errors import WeightsError

PROGRAM = Path(__file__).with_name("contender.py")
BASELINE = "faster-whisper"
INSTALL = "python3 -m venv VENV && VENV/bin/pip install faster-whisper==1.2.1 pywhispercpp==1.5.1"


class Contender:
    """An engine in its own process."""

    def __init__(self, name: str, python: str, weights: str, threads: int, started: ExitStack) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)
        self._process = started.enter_context(
            subprocess.Popen(
                [python, str(PROGRAM), name, weights, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        )
        started.callback(self._process.kill)
        ready = self._read()
        if "missing" in ready:
            raise LeftOut(f"{ready['missing']} is not installed: {INSTALL}, then --peers-python VENV/bin/python")
        self.name = name
        self.label: str = ready["ready"]

    def transcribe(self, file: Path, language: str) -> tuple[str, float]:
        """The text, and the CPU seconds that it took."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"file": str(file), "language": language}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        return answer["text"], answer["cpu"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise LeftOut(f"its process ended with {self._process.wait()}: run {PROGRAM.name} directly to see why")
        return dict(json.loads(line))


@dataclass
class Outcome:
    """The result of one engine for all clips."""

    name: str
    label: str
    """The name and version."""
    cpu_seconds: float = 0.0
    errors: dict[str, Errors] = field(default_factory=dict)
    """By language."""

    def add(self, clip: Clip, text: str, cpu_seconds: float) -> None:
        self.cpu_seconds += cpu_seconds
        self.errors[clip.language] = self.errors.get(clip.language, Errors()) + errors(clip.text, text, clip.language)

    def rates(self) -> list[str]:
        """Word error rates in percent, overall and by language."""
        each = [sum(self.errors.values(), Errors()), *(self.errors[language] for language in sorted(self.errors))]
        return [f"{100 * found.rate:.1f}" for found in each]


def weights_for(name: str, weights: Weights) -> str:
    """The weights in the form that the contender loads."""
    match name:
        case "faster-whisper" | "faster-whisper-beam" | "faster-whisper-batched":
            return str(weights.ctranslate2())
        case "transformers":
            return str(weights.hugging_face())
        case "whisper.cpp":
            return str(weights.ggml())
        case _:
            return weights.name


def start_contenders(
    names: Sequence[str], python: str, weights: Weights, threads: int, started: ExitStack
) -> list[Contender]:
    """Starts the available contenders, and prints why each other one is left out."""
    contenders = []
    for name in names:
        try:
            chosen = python if name in MODULES else sys.executable
            contenders.append(Contender(name, chosen, weights_for(name, weights), threads, started))
        except (LeftOut, WeightsError) as error:
            print(f"{name} is left out: {error}", flush=True)
    return contenders


def compete(contenders: Sequence[Contender], found: Sequence[Clip], folder: Path) -> list[Outcome]:
    outcomes = [Outcome(contender.name, contender.label) for contender in contenders]
    file = folder / "clip.npy"
    for number, clip in enumerate([found[0], *found]):
        np.save(file, clip.samples.astype(np.float32) / 32768)
        for turn in range(len(contenders)):
            index = (number + turn) % len(contenders)
            text, cpu_seconds = contenders[index].transcribe(file, clip.language)
            if number:  # the first clip is repeated: its first run includes set-up
                outcomes[index].add(clip, text, cpu_seconds)
    return outcomes


def table(outcomes: Sequence[Outcome], found: Sequence[Clip]) -> list[str]:
    seconds = sum(clip.seconds for clip in found)
    baseline = next((outcome.cpu_seconds for outcome in outcomes if outcome.name == BASELINE), None)
    languages = sorted({clip.language for clip in found})
    head = ["engine", "CPU ms per utterance", f"of {BASELINE} greedy", "CPU s per audio s", "WER %"]
    lines = [f"| {' | '.join([*head, *languages])} |", "|---" * (len(head) + len(languages)) + "|"]
    for outcome in outcomes:
        ratio = f"{outcome.cpu_seconds / baseline:.2f}" if baseline else ""
        cells = [
            outcome.label,
            f"{1000 * outcome.cpu_seconds / len(found):.0f}",
            ratio,
            f"{outcome.cpu_seconds / seconds:.3f}",
            *outcome.rates(),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--language", help="only clips in this language")
    parser.add_argument("--limit", type=int, default=1000, help="at most so many clips")
    parser.add_argument("--weights", default="base", help="an offline name, a directory or a hub id")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers-python", default=sys.executable, metavar="PATH", help="that has the peers installed")
    parser.add_argument(
        "--engines",
        type=lambda text: text.split(","),
        default=list(CONTENDERS),
        help=f"of {','.join(CONTENDERS)}; default all",
    )
    options = parser.parse_args()
    if unknown := set(options.engines) - set(CONTENDERS):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    found = spread(clips(options.manifest, options.language), options.limit)
    with tempfile.TemporaryDirectory() as name, ExitStack() as started:
        folder = Path(name)
        weights = Weights(options.weights, folder)
        contenders = start_contenders(options.engines, options.peers_python, weights, options.threads, started)
        seconds = sum(clip.seconds for clip in found)
        print(
            f"\n{machine()}; commit {commit()}; {load()}; {options.weights}, {options.threads} thread(s), "
            f"{len(found)} utterances, mean {seconds / len(found):.1f} s\n",
            flush=True,
        )
        print("\n".join(table(compete(contenders, found, folder), found)))


if __name__ == "__main__":
    main()
