"""A batch job for benchmarks: a process that transcribes windows of speech endlessly, on one thread of the model.

`beside.py` starts it. It prints one JSON line when the model is loaded, and one for each pass over a window. The passes
alternate as in the accurate transcription of a recording: greedy, then with a beam size of five, both with word times.
Another thread, of the default class, prints how late it was woken: a process that transcribes must also renew a lease.
"""

import argparse
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from speech import RATE, Clip, Samples, clips

from server.inference.decoding.encoder_window import window
from server.inference.decoding.hypothesis import UtteranceAudio
from server.inference.decoding.transcriber import Transcriber
from server.inference.recognition import RecognitionOptions
from server.inference.weights import resolve
from server.inference.whisper.precision import choose_precision

WINDOW_SECONDS = 28.0
BEAMS = 5
LOWEST = 19
BEAT_SECONDS = 0.5


def nice() -> None:
    """The nice value of the calling thread, and of threads that it starts."""
    os.nice(LOWEST)


def idle() -> None:
    """The scheduling class SCHED_IDLE for the calling thread. It needs no privilege."""
    os.nice(LOWEST)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def idle_group() -> None:
    """SCHED_IDLE, and the lowest weight for the autogroup of this process.

    With autogroups the kernel divides the CPU between sessions (setsid) first, so that the nice value and the class of
    a process apply only within its own session.
    """
    idle()
    if os.getsid(0) != os.getpid():
        raise SystemExit("the autogroup belongs to other processes as well")
    Path("/proc/self/autogroup").write_text(str(LOWEST))


def idle_pinned() -> None:
    """The same, on one CPU."""
    idle_group()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


SCHEDULING: dict[str, Callable[[], None]] = {
    "normal": lambda: None,
    "nice": nice,
    "idle": idle,
    "idle-group": idle_group,
    "idle-pinned": idle_pinned,
}


def windows(found: Sequence[Clip], longest: float) -> list[Samples]:
    """The clips one after the other, in windows of at most `longest` seconds."""
    whole: list[Samples] = []
    pending: list[Samples] = []
    for clip in found:
        if pending and (sum(map(len, pending)) + len(clip.samples)) / RATE > longest:
            whole.append(np.concatenate(pending))
            pending = []
        pending.append(clip.samples)
    return [*whole, np.concatenate(pending)]


def floats(samples: Samples) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(32768)


def run(transcriber: Transcriber, found: Sequence[Samples], language: str) -> None:
    """Transcribes all windows again and again, and prints the seconds of audio of each pass."""
    passes = [transcriber.with_beams(1), transcriber.with_beams(BEAMS)]
    for samples in itertools.cycle(found):
        seconds = len(samples) / RATE
        options = RecognitionOptions(words=True, speech=((0.0, seconds),))
        utterance = UtteranceAudio(floats(samples), language, options)
        for one in passes:
            one.transcribe([utterance], window(seconds, one.full_window))
            report(audio_seconds=seconds / len(passes))


def beat() -> None:
    """Prints when each beat began, and how late its end was."""
    while True:
        began = time.monotonic()
        time.sleep(BEAT_SECONDS)
        report(beat=began, late=time.monotonic() - began - BEAT_SECONDS)


def report(**values: float) -> None:
    print(json.dumps(values) + "\n", end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheduling", choices=SCHEDULING, default="normal")
    parser.add_argument("--window-seconds", type=float, default=WINDOW_SECONDS)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--weights", default="base")
    parser.add_argument("--cache-dir", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    directory = resolve(arguments.weights, arguments.cache_dir, lambda _: None)
    transcriber = Transcriber(directory, device, choose_precision(device))
    found = clips(arguments.manifest, arguments.language, 2, 15)
    threading.Thread(target=beat, daemon=True).start()
    SCHEDULING[arguments.scheduling]()
    report()
    run(transcriber, windows(found, arguments.window_seconds), arguments.language)


if __name__ == "__main__":
    main()
