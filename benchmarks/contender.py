"""One engine in its own process, for `engine.py`: reports the text and the CPU time of each utterance.

    python benchmarks/contender.py NAME WEIGHTS THREADS

Reads a line of JSON for each utterance, `{"file": ..., "language": ...}` with float32 samples at 16 kHz in a .npy file,
and answers each with `{"text": ..., "cpu": seconds}`. Before the first it writes `{"ready": "name and version"}`, or
`{"missing": "module"}` if the engine is not installed. It imports only what its engine needs, so that it runs in a
virtual environment that has only the engine.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Transcribe = Callable[[np.ndarray, str], str]


def dalston(weights: str, threads: int, model: str = "fast", spare_beams: int = 1) -> tuple[str, Transcribe]:
    """The engine as the server runs it, with queue, second attempt and hallucination guard.

    Greedy, as it is under load, unless `model` or `spare_beams` select beam search.
    """
    from server.inference.config import InferenceSettings
    from server.inference.scheduling.engine import Engine

    runner = asyncio.Runner()
    models = {"fast": weights, "accurate": weights}
    engine = Engine(InferenceSettings(models=models, threads=threads, device="cpu", spare_beams=spare_beams))
    runner.run(engine.__aenter__())
    label = f", model `{model}`" if model != "fast" else f", {spare_beams} beams" if spare_beams > 1 else ""
    return (
        f"dalston{label}",
        lambda samples, language: runner.run(engine.recognize(model, samples, language)).text,
    )


def dalston_alone(weights: str, threads: int) -> tuple[str, Transcribe]:
    """As it is while the engine is idle."""
    return dalston(weights, threads, spare_beams=3)


def dalston_accurate(weights: str, threads: int) -> tuple[str, Transcribe]:
    return dalston(weights, threads, "accurate")


def dalston_full_window(weights: str, threads: int) -> tuple[str, Transcribe]:
    """The same model on the 30 s that Whisper was trained on."""
    import torch

    from server.inference.config import InferenceSettings
    from server.inference.decoding.hypothesis import UtteranceAudio
    from server.inference.decoding.transcriber import Transcriber
    from server.inference.weights import resolve
    from server.inference.whisper.precision import choose_device, choose_precision

    torch.set_num_threads(threads)
    device = choose_device("cpu")
    directory = resolve(weights, InferenceSettings().cache_dir, lambda _: None)
    transcriber = Transcriber(directory, device, choose_precision(device))

    def transcribe(samples: np.ndarray, language: str) -> str:
        return transcriber.transcribe([UtteranceAudio(samples, language)], transcriber.full_window)[0].text

    return "dalston, window of 30 s", transcribe


def transformers(weights: str, threads: int) -> tuple[str, Transcribe]:
    """`generate`, greedy, in single precision."""
    import torch

    from server.inference.torchaudio_compat import import_torchaudio

    import_torchaudio()  # in our compatible mode: transformers would fail to import it
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    torch.set_num_threads(threads)
    model = WhisperForConditionalGeneration.from_pretrained(weights, dtype=torch.float32).eval()
    processor = WhisperProcessor.from_pretrained(weights)
    multilingual = model.generation_config.is_multilingual

    def transcribe(samples: np.ndarray, language: str) -> str:
        features = processor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        task = {"language": language, "task": "transcribe"} if multilingual else {}
        with torch.inference_mode():
            tokens = model.generate(features, num_beams=1, do_sample=False, **task)
        return str(processor.batch_decode(tokens, skip_special_tokens=True)[0])

    return f"transformers {version('transformers')} fp32", transcribe


def faster_whisper(weights: str, threads: int, beam: int = 1) -> tuple[str, Transcribe]:
    """One pass without timestamps, the cheapest mode."""
    from faster_whisper import WhisperModel

    model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(samples: np.ndarray, language: str) -> str:
        segments, _ = model.transcribe(
            samples,
            language=language,
            beam_size=beam,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments)

    mode = "greedy" if beam == 1 else f"beam {beam}"
    return f"faster-whisper {version('faster-whisper')} int8 {mode}", transcribe


def faster_whisper_beam(weights: str, threads: int) -> tuple[str, Transcribe]:
    return faster_whisper(weights, threads, beam=5)


def whisper_cpp(weights: str, threads: int) -> tuple[str, Transcribe]:
    """One greedy pass in half precision."""
    from pywhispercpp.model import Model

    quiet = dict.fromkeys(("print_progress", "print_realtime", "print_timestamps"), False)
    model = Model(weights, n_threads=threads, single_segment=True, no_context=True, temperature_inc=0.0, **quiet)

    def transcribe(samples: np.ndarray, language: str) -> str:
        # It refuses audio that is shorter than a second.
        padded = np.pad(samples, (0, max(0, 17_600 - len(samples))))
        return " ".join(segment.text.strip() for segment in model.transcribe(padded, language=language))

    return f"whisper.cpp f16 (pywhispercpp {version('pywhispercpp')})", transcribe


def live(weights: str, threads: int, model: str = "fast") -> tuple[str, Transcribe]:
    """A live session without partials: voice activity detection, segmenter and engine. Recordings come at once."""
    from server.inference.config import InferenceSettings
    from server.inference.scheduling.engine import Engine
    from server.session.options import SessionOptions
    from server.session.session import Session
    from server.vad.silero import SileroVad

    runner = asyncio.Runner()
    models = {"fast": weights, "accurate": weights}
    engine = Engine(InferenceSettings(models=models, threads=threads, device="cpu", spare_beams=1))
    runner.run(engine.__aenter__())
    vad = SileroVad()

    async def stream(samples: np.ndarray, language: str) -> str:
        audio = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        options = SessionOptions(language=language, model=model, partials=False)
        async with Session(options, vad.stream(), engine) as session:

            async def read() -> str:
                texts = [event.utterance.text async for event in session if hasattr(event, "utterance")]
                return " ".join(texts)

            reading = asyncio.create_task(read())
            for start in range(0, len(audio), 16_000):
                await session.push(audio[start : start + 16_000].tobytes())
            await session.finish()
            return await reading

    return f"dalston, live, `{model}`", lambda samples, language: runner.run(stream(samples, language))


def live_accurate(weights: str, threads: int) -> tuple[str, Transcribe]:
    return live(weights, threads, "accurate")


def whole_file(weights: str, threads: int) -> tuple[str, Transcribe]:
    """A whole recording as the worker transcribes it, listening included."""
    from domain.job import JobRequest
    from server.inference.config import InferenceSettings
    from worker.whole_file.recognizer import WholeFileRecognizer

    models = {"fast": weights, "accurate": weights}
    recognizer = WholeFileRecognizer.load(InferenceSettings(models=models, threads=threads, device="cpu"))

    class Audio:
        def __init__(self, samples: np.ndarray) -> None:
            self._samples = samples
            self.length = len(samples)

        def read(self, first: int, last: int) -> np.ndarray:
            return self._samples[first:last]

    def transcribe(samples: np.ndarray, language: str) -> str:
        audio, request = Audio(samples), JobRequest(language=language)
        plan = recognizer.listen(request, audio)
        passages = range(len(plan.passages))
        return " ".join(each.text for index in passages for each in recognizer.recognize(request, plan, index, audio))

    return "dalston, whole recording", transcribe


def faster_whisper_batched(weights: str, threads: int) -> tuple[str, Transcribe]:
    """Its batched pipeline with its defaults: a beam size of five, its own voice activity detection."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    pipeline = BatchedInferencePipeline(WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=threads))

    def transcribe(samples: np.ndarray, language: str) -> str:
        segments, _ = pipeline.transcribe(samples, language=None if language == "auto" else language, beam_size=5)
        return " ".join(segment.text.strip() for segment in segments)

    return f"faster-whisper {version('faster-whisper')} int8 beam 5, batched", transcribe


WHOLE_RECORDINGS: dict[str, Callable[[str, int], tuple[str, Transcribe]]] = {
    "live-fast": live,
    "live-accurate": live_accurate,
    "whole-file": whole_file,
    "faster-whisper-batched": faster_whisper_batched,
}
"""For `whole_files.py`."""
CONTENDERS: dict[str, Callable[[str, int], tuple[str, Transcribe]]] = {
    "dalston": dalston,
    "dalston-alone": dalston_alone,
    "dalston-accurate": dalston_accurate,
    "dalston-full-window": dalston_full_window,
    "faster-whisper": faster_whisper,
    "faster-whisper-beam": faster_whisper_beam,
    "transformers": transformers,
    "whisper.cpp": whisper_cpp,
}
MODULES = {
    "faster-whisper": "faster_whisper",
    "faster-whisper-batched": "faster_whisper",
    "faster-whisper-beam": "faster_whisper",
    "whisper.cpp": "pywhispercpp",
}
"""The module of each engine that is not part of this project."""


def main() -> None:
    name, weights, threads = sys.argv[1:]
    # Libraries print to standard output, some from C: the answers use a duplicate of it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    if name in MODULES:
        try:
            importlib.import_module(MODULES[name])
        except ModuleNotFoundError as error:
            return answer(missing=error.name)
    label, transcribe = (CONTENDERS | WHOLE_RECORDINGS)[name](weights, int(threads))
    answer(ready=label)
    for line in sys.stdin:
        request = json.loads(line)
        samples = np.load(Path(request["file"]))
        began = time.process_time()
        text = transcribe(samples, request["language"])
        answer(text=text, cpu=time.process_time() - began)
    return None


if __name__ == "__main__":
    main()
