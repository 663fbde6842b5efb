"""When words are said: the engine's times against faster-whisper's on the same weights, and what they cost.

    python benchmarks/word_times.py clips.tsv --peer base-ct2
    python benchmarks/word_times.py clips.tsv --peer base-ct2 --language en --limit 40

Needs faster-whisper beside the repository's own packages, and its CTranslate2 weights in the directory `--peer`. The
manifest is that of engine_accuracy.py. Words are compared where both wrote the same text; utterances go through both
in turn, one at a time on one thread.
"""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_accuracy import Clip, read_manifest

from server.inference.batch_policy import window
from server.inference.config import InferenceSettings
from server.inference.recognition import RecognitionOptions, Word
from server.inference.transcriber import Transcriber, Utterance
from server.inference.weights import resolve
from server.inference.whisper.features import SAMPLE_RATE
from server.inference.whisper.precision import choose_device, choose_precision


@dataclass
class Comparison:
    """What two ways of timing the same words made of them."""

    starts: list[float] = field(default_factory=list)
    """Ours less theirs, in seconds."""
    ends: list[float] = field(default_factory=list)
    compared: int = 0
    """Utterances in which both wrote the same words."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds of all utterances, by what was run."""

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - started
        return result

    def add(self, ours: Sequence[Word], theirs: Sequence[Word]) -> None:
        if [_plain(word.word) for word in ours] != [_plain(word.word) for word in theirs] or not ours:
            return
        self.compared += 1
        self.starts += [one.start - other.start for one, other in zip(ours, theirs, strict=True)]
        self.ends += [one.end - other.end for one, other in zip(ours, theirs, strict=True)]


def compare(model: Transcriber, peer: Any, clips: Sequence[Clip]) -> Comparison:
    """Times the words of all clips with `model` and with `peer`, a faster_whisper.WhisperModel."""
    comparison = Comparison()
    for clip in clips:
        frames = window(len(clip.samples) / SAMPLE_RATE, model.full_window)

        def ours(words: bool, clip: Clip = clip, frames: int = frames) -> Any:
            return model.transcribe([Utterance(clip.samples, clip.language, RecognitionOptions(words=words))], frames)[
                0
            ].words

        def theirs(words: bool, clip: Clip = clip) -> tuple[Word, ...]:
            segments, _ = peer.transcribe(
                clip.samples, language=clip.language, beam_size=1, temperature=0.0, word_timestamps=words
            )
            said = [word for segment in segments for word in segment.words or ()]
            return tuple(Word(word.word.strip(), word.start, word.end, word.probability) for word in said)

        comparison.run("ours, text", lambda: ours(False))
        comparison.run("peer, text", lambda: theirs(False))
        comparison.add(
            comparison.run("ours, words", lambda: ours(True)),
            comparison.run("peer, words", lambda: theirs(True)),
        )
    return comparison


def report(comparison: Comparison, utterances: int) -> None:
    print(f"{len(comparison.starts)} words of {comparison.compared} of {utterances} utterances\n")
    print("| | mean difference ms | median | p95 | bias |\n|---|---|---|---|---|")
    for name, differences in (("start", comparison.starts), ("end", comparison.ends)):
        ms = 1000 * np.array(differences)
        off = np.abs(ms)
        print(f"| {name} | {off.mean():.0f} | {np.median(off):.0f} | {np.percentile(off, 95):.0f} | {ms.mean():+.0f} |")
    print("\n| | CPU ms per utterance |\n|---|---|")
    for name, seconds in comparison.cpu.items():
        print(f"| {name} | {1000 * seconds / utterances:.0f} |")


def _plain(word: str) -> str:
    return re.sub(r"\W", "", word).lower()


def main() -> None:
    from faster_whisper import WhisperModel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="the same weights in CTranslate2's format")
    parser.add_argument("--weights", default="base", help="an offline name, a directory or a hub id")
    parser.add_argument("--language", help="only clips in this language")
    parser.add_argument("--limit", type=int, default=60, help="at most so many clips")
    options = parser.parse_args()

    settings = InferenceSettings()
    clips = read_manifest(options.manifest, options.language, options.limit)
    torch.set_num_threads(1)
    device = choose_device(settings.device)
    model = Transcriber(resolve(options.weights, settings.cache_dir, print), device, choose_precision(device))
    peer = WhisperModel(str(options.peer), device="cpu", compute_type="int8", cpu_threads=1)
    compare(model, peer, clips[:1])  # the first forward sets up
    report(compare(model, peer, clips), len(clips))


if __name__ == "__main__":
    main()
