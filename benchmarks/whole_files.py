"""Compares transcripts of whole recordings: live, by the worker, and by faster-whisper's batched pipeline.

    python benchmarks/whole_files.py --manifest clips.tsv
    python benchmarks/whole_files.py --manifest clips.tsv --peers-python VENV/bin/python --seconds 600 --detect

The clips of each language (benchmarks/README.md describes the manifest) are joined in random order, with pauses of
0.7 s. `live-fast` and `live-accurate` are sessions as clients get them from a busy server; `whole-file` listens to the
recording and transcribes its passages; faster-whisper has its own voice activity detection and a beam size of five.
CPU time is that of the whole process for the recording, listening and detection of speech included.
"""

import argparse
import itertools
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from contender import MODULES, WHOLE_RECORDINGS
from engine import Contender, weights_for
from provenance import commit, load, machine
from scoring import Errors, errors
from speech import RATE, Clip, clips
from weights import LeftOut, Weights

from server.inference.errors import WeightsError

PAUSE_SECONDS = 0.7


def joined(found: Sequence[Clip], seconds: float, seed: int) -> list[Clip]:
    """Recordings of clips in random order, with pauses before, between and after them.

    Each recording is of at most `seconds`, unless a single clip is longer; no clip is in two of them.
    """
    pause = np.zeros(int(PAUSE_SECONDS * RATE), np.int16)
    groups: list[list[Clip]] = [[]]
    length = len(pause)
    for clip in random.Random(seed).sample(found, len(found)):
        added = len(clip.samples) + len(pause)
        if groups[-1] and length + added > seconds * RATE:
            groups.append([])
            length = len(pause)
        groups[-1].append(clip)
        length += added
    return [
        Clip(
            np.concatenate([pause, *itertools.chain.from_iterable((clip.samples, pause) for clip in group)]),
            " ".join(clip.text for clip in group),
            found[0].language,
        )
        for group in groups
    ]


class Row:
    """The results of one engine."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._rates: list[str] = []
        self._cpu_seconds = self._seconds = 0.0
        self._errors = Errors()

    def add(self, recording: Clip, text: str, cpu_seconds: float) -> None:
        found = errors(recording.text, text, recording.language)
        self._errors += found
        self._rates.append(f"{100 * found.rate:.1f} ({cpu_seconds / recording.seconds:.3f})")
        self._cpu_seconds += cpu_seconds
        self._seconds += recording.seconds

    def __str__(self) -> str:
        total = f"{100 * self._errors.rate:.1f}"
        return f"| {self._label} | {self._cpu_seconds / self._seconds:.3f} | {total} | {' | '.join(self._rates)} |"


def run(name: str, python: str, weights: Weights, threads: int, recordings: Sequence[Clip], detect: bool) -> Row:
    """Transcribes all recordings with one engine, in a process of its own that ends with them."""
    with ExitStack() as started, tempfile.TemporaryDirectory() as folder:
        chosen = python if name in MODULES else sys.executable
        contender = Contender(name, chosen, weights_for(name, weights), threads, started)
        row, file = Row(contender.label), Path(folder) / "recording.npy"
        np.save(file, recordings[0].samples[: 10 * RATE].astype(np.float32) / 32768)
        contender.transcribe(file, recordings[0].language)  # the first run includes set-up
        for recording in recordings:
            np.save(file, recording.samples.astype(np.float32) / 32768)
            text, cpu_seconds = contender.transcribe(file, "auto" if detect else recording.language)
            row.add(recording, text, cpu_seconds)
            print(f"    {name}, {recording.language}: done", file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--languages", type=lambda text: text.split(","), help="only these; default all")
    parser.add_argument("--seconds", type=float, default=300, help="of each recording, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the clips")
    parser.add_argument("--part", type=int, default=0, help="0 for the first recording of that order, 1 for the next")
    parser.add_argument("--detect", action="store_true", help="have the language detected")
    parser.add_argument("--weights", default="base", help="an offline name, a directory or a hub id")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers-python", default=sys.executable, metavar="PATH", help="that has the peers installed")
    parser.add_argument(
        "--engines",
        type=lambda text: text.split(","),
        default=list(WHOLE_RECORDINGS),
        help=f"of {','.join(WHOLE_RECORDINGS)}; default all",
    )
    options = parser.parse_args()
    if unknown := set(options.engines) - set(WHOLE_RECORDINGS):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    found = sorted(clips(options.manifest), key=lambda clip: clip.language)
    recordings = [
        recording
        for language, of_language in itertools.groupby(found, key=lambda clip: clip.language)
        if options.languages is None or language in options.languages
        for recording in joined(list(of_language), options.seconds, options.seed)[options.part :][:1]
    ]
    if not recordings:
        parser.error(f"the clips are too few for part {options.part}")
    lengths = ", ".join(f"{recording.language} {recording.seconds:.0f} s" for recording in recordings)
    print(f"\n{machine()}; commit {commit()}; {load()}; {options.weights}, {options.threads} thread(s); {lengths}\n")
    columns = [f"{recording.language} (CPU s per audio s)" for recording in recordings]
    head = ["engine", "CPU s per audio s", "WER %", *columns]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        weights = Weights(options.weights, Path(folder))
        for name in options.engines:
            try:
                print(run(name, options.peers_python, weights, options.threads, recordings, options.detect), flush=True)
            except (LeftOut, WeightsError) as error:
                print(f"{name} is left out: {error}", flush=True)


if __name__ == "__main__":
    main()
