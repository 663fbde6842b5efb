"""Word times: the engine's compared with faster-whisper's on the same weights, and their CPU time.

    python benchmarks/word_times.py clips.tsv --peer base-ct2
    python benchmarks/word_times.py clips.tsv --peer base-ct2 --language en --limit 40

Needs faster-whisper in addition to the repository's own packages, and its CTranslate2 weights in the directory
`--peer`. The manifest is that of engine.py. Words are compared if both texts are the same; both process the utterances
in turn, one at a time on one thread.
"""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from speech import Clip, clips, spread

from server.inference.config import InferenceSettings
from server.inference.decoding.encoder_window import window
from server.inference.decoding.hypothesis import UtteranceAudio
from server.inference.decoding.transcriber import Transcriber
from server.inference.recognition import RecognitionOptions, Word
from server.inference.weights import resolve
from server.inference.whisper.precision import choose_device, choose_precision


@dataclass
class Comparison:
    """The differences between two timings of the same words."""

    starts: list[float] = field(default_factory=list)
    """Ours minus theirs, in seconds."""
    ends: list[float] = field(default_factory=list)
    compared: int = 0
    """Utterances with the same words in both."""
    cpu: dict[str, float] = field(default_factory=dict)
    """CPU seconds of all utterances, by run."""

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


def compare(model: Transcriber, peer: Any, spoken: Sequence[Clip]) -> Comparison:
    """Times the words of all clips with `model` and with `peer`, a faster_whisper.WhisperModel."""
    comparison = Comparison()
    for clip in spoken:
        comparison.run("ours, text", partial(_ours, model, clip, words=False))
        comparison.run("peer, text", partial(_theirs, peer, clip, words=False))
        comparison.add(
            comparison.run("ours, words", partial(_ours, model, clip, words=True)),
            comparison.run("peer, words", partial(_theirs, peer, clip, words=True)),
        )
    return comparison


def _ours(model: Transcriber, clip: Clip, *, words: bool) -> Sequence[Word]:
    utterance = UtteranceAudio(_floats(clip), clip.language, RecognitionOptions(words=words))
    return model.transcribe([utterance], window(clip.seconds, model.full_window))[0].words


def _theirs(peer: Any, clip: Clip, *, words: bool) -> Sequence[Word]:
    segments, _ = peer.transcribe(
        _floats(clip), language=clip.language, beam_size=1, temperature=0.0, word_timestamps=words
    )
    timed = [word for segment in segments for word in segment.words or ()]
    return [Word(word.word.strip(), word.start, word.end, word.probability) for word in timed]


def _floats(clip: Clip) -> NDArray[np.float32]:
    return (clip.samples / 32768).astype(np.float32)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="the same weights in CTranslate2's format")
    parser.add_argument("--weights", default="base", help="an offline name, a directory or a hub id")
    parser.add_argument("--language", help="only clips in this language")
    parser.add_argument("--limit", type=int, default=60, help="at most so many clips")
    options = parser.parse_args()

    from faster_whisper import WhisperModel  # after the arguments, so that --help works without it

    settings = InferenceSettings()
    spoken = spread(clips(options.manifest, options.language), options.limit)
    torch.set_num_threads(1)
    device = choose_device(settings.device)
    model = Transcriber(resolve(options.weights, settings.cache_dir, print), device, choose_precision(device))
    peer = WhisperModel(str(options.peer), device="cpu", compute_type="int8", cpu_threads=1)
    compare(model, peer, spoken[:1])  # the first run includes set-up
    report(compare(model, peer, spoken), len(spoken))


if __name__ == "__main__":
    main()
