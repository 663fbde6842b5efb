"""The engine on recorded utterances: word error rate and CPU time, with the shortened window and with the full one.

    python benchmarks/engine_accuracy.py clips.tsv
    python benchmarks/engine_accuracy.py clips.tsv --weights tiny.en --language en --limit 100

The manifest has the columns file (beside the manifest, 16 kHz mono), language and reference. Every utterance goes
through both windows in turn, one at a time on one thread, so what else the machine does weighs on both alike.
"""

import argparse
import csv
import math
import platform
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from server.inference.batch_policy import window
from server.inference.config import InferenceSettings
from server.inference.guard import Evidence, invented
from server.inference.transcriber import Hypothesis, Transcriber, Utterance
from server.inference.weights import resolve
from server.inference.whisper.features import SAMPLE_RATE
from server.inference.whisper.precision import choose_device, choose_precision

LONGEST_SECONDS = 28.0
ENGLISH, OTHER = EnglishTextNormalizer({}), BasicTextNormalizer(remove_diacritics=True)


@dataclass(frozen=True)
class Clip:
    """An utterance and what is said in it."""

    samples: NDArray[np.float32]
    language: str
    reference: str


@dataclass
class Outcome:
    """What one way of transcribing made of all clips."""

    name: str
    seconds: float = 0.0
    pairs: list[tuple[str, str, str]] = field(default_factory=list)
    """Language, what was said, what was heard."""
    redone: int = 0
    suppressed: Counter[str] = field(default_factory=Counter)

    def word_error_rate(self, language: str | None = None) -> float:
        normal = [
            (normalise(said), normalise(heard))
            for spoken, said, heard in self.pairs
            if language in (None, spoken)
            for normalise in [ENGLISH if spoken == "en" else OTHER]
        ]
        counted = [pair for pair in normal if pair[0].strip()]
        return float(jiwer.wer([said for said, _ in counted], [heard for _, heard in counted])) if counted else math.nan


def read_manifest(path: Path, language: str | None, limit: int) -> list[Clip]:
    """Clips that fit the window, spread evenly over the manifest where there are more than `limit`."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [row for row in rows if language in (None, row["language"])]
    clips = []
    for row in rows[:: max(1, len(rows) // limit)][:limit]:
        samples, rate = soundfile.read(path.parent / row["file"], dtype="float32")
        if rate != SAMPLE_RATE or samples.ndim != 1:
            raise SystemExit(f"{row['file']} is not 16 kHz mono")
        if len(samples) <= LONGEST_SECONDS * SAMPLE_RATE:
            clips.append(Clip(samples, row["language"], row["reference"]))
    return clips


def transcribe(model: Transcriber, clip: Clip, frames: int, outcome: Outcome) -> None:
    """Does what the engine does with an utterance, second try and guard included, and adds it to the outcome."""
    utterance = [Utterance(clip.samples, clip.language)]
    started = time.process_time()
    (hypothesis,) = model.transcribe(utterance, frames)
    if hypothesis.failing and frames < model.full_window:
        outcome.redone += 1
        (hypothesis,) = model.transcribe(utterance, model.full_window)
    outcome.seconds += time.process_time() - started
    reason = invented(evidence(hypothesis))
    if reason is not None:
        outcome.suppressed[reason] += 1
    outcome.pairs.append((clip.language, clip.reference, "" if reason else hypothesis.text))


def evidence(hypothesis: Hypothesis) -> Evidence:
    return Evidence(
        text=hypothesis.text,
        mean_log_probability=hypothesis.mean_log_probability,
        no_speech_probability=hypothesis.no_speech_probability,
        looped=hypothesis.ending == "loop",
    )


def report(weights: str, clips: list[Clip], outcomes: list[Outcome]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    languages = sorted({clip.language for clip in clips})
    length = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE
    print(
        f"{weights}, {len(clips)} utterances, mean {length / len(clips):.1f} s; one thread of "
        f"{torch.cpu.get_capabilities().get('cpu_name', platform.machine())}; commit {commit.stdout.strip()}\n"
    )
    columns = ["window", "CPU ms per utterance", "CPU per audio second", "WER %", *languages, "redone", "suppressed"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for outcome in outcomes:
        rates = " | ".join(f"{100 * outcome.word_error_rate(language):.1f}" for language in (None, *languages))
        print(
            f"| {outcome.name} | {1000 * outcome.seconds / len(clips):.0f} | {outcome.seconds / length:.3f} | {rates} "
            f"| {outcome.redone} | {dict(outcome.suppressed) or 0} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--weights", default="base", help="an offline name, a directory or a hub id")
    parser.add_argument("--language", help="only clips in this language")
    parser.add_argument("--limit", type=int, default=1000, help="at most so many clips")
    options = parser.parse_args()

    settings = InferenceSettings()
    clips = read_manifest(options.manifest, options.language, options.limit)
    if not clips:
        raise SystemExit("the manifest has no clip that fits")
    torch.set_num_threads(1)
    device = choose_device(settings.device)
    model = Transcriber(resolve(options.weights, settings.cache_dir, print), device, choose_precision(device))
    model.transcribe([Utterance(clips[0].samples, clips[0].language)], model.full_window)  # the first forward sets up
    short, full = Outcome("shortened"), Outcome("full")
    for clip in clips:
        transcribe(model, clip, window(len(clip.samples) / SAMPLE_RATE, model.full_window), short)
        transcribe(model, clip, model.full_window, full)
    report(options.weights, clips, [short, full])


if __name__ == "__main__":
    main()
