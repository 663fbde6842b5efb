"""Recall: the share of utterances that get a text, by kind. A lost word counts as much as a lost sentence.

    apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-wav    the voices
    python benchmarks/recall.py                                  all clips: 2,100 sessions, about 20 minutes
    python benchmarks/recall.py --each 4 --models fast,fast1 --languages en,es --evidence recall.jsonl

Recorded prompts, and digit strings and stretches without a pause that are made of them, go through whole sessions:
detector, engine, guard. Recall is the share that has a final; the share of correct texts is reported as well, because a
guard can always raise one at the expense of the other. A clip without a final is transcribed again with the full
window: if the guard accepts that text, this service has lost it and not the model.
"""

import argparse
import asyncio
import gzip
import json
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from noises import noisy
from provenance import commit, load, machine
from scoring import errors, words
from speech import RATE, Samples, whole_span

from domain.transcript import Utterance
from server.inference.config import InferenceSettings
from server.inference.decoding.hypothesis import UtteranceAudio
from server.inference.decoding.transcriber import Transcriber
from server.inference.scheduling.engine import Engine
from server.inference.weights import resolve
from server.inference.whisper.precision import choose_device, choose_precision
from server.session.events import Ended, SpeechStarted
from server.session.options import AUTO, SessionOptions, VadOptions
from server.session.segmenter import Segmenter, SpeechSegment
from server.session.session import Session
from server.vad.silero import WINDOW_SAMPLES, SileroVad
from telemetry.logs import configure_logging

SOUNDS = Path("/usr/share/asterisk/sounds")
TEXTS = "/usr/share/doc/asterisk-core-sounds-{0}/core-sounds-{0}.txt.gz"
LANGUAGES = ("en", "es", "fr", "it", "ru")
MODELS = {"fast1": 1, "fast": 3, "accurate": 5}
"""Name -> beam size: `fast` is greedy under load, and has three beams otherwise."""
KINDS = ("letters", "words", "digits", "numbers", "answers", "sentences", "stretches")
MARGIN_SECONDS = 0.7
"""Silence around the speech."""
DIGIT_PAUSE_SECONDS = (0.08, 0.22)
SENTENCE_PAUSE_SECONDS = 0.12
STRETCH_SECONDS = (15.0, 27.0)
AT_ONCE = 4
STEP_SECONDS = 0.5
RIGHT_SHARE = 0.1
"""The share of words that may be wrong in a text that counts as right."""


@dataclass(frozen=True)
class Spoken:
    """A clip and its text."""

    kind: str
    language: str
    text: str
    samples: Samples
    also: str = ""
    """The text in digits."""


@dataclass
class Outcome:
    """The result for one clip."""

    kind: str
    language: str
    model: str
    noise: str
    reference: str
    detected: bool = False
    """Whether speech was detected."""
    text: str = ""
    languages: tuple[str, ...] = ()
    right: bool = False
    words: int = 0
    found: int = 0
    """Words of the reference that are in the text, in order."""
    in_full: str = ""
    """For a clip without a final: the text with the full window, if the guard accepts it."""
    seconds: float = 0.0

    @property
    def has_text(self) -> bool:
        return bool(self.text)


class Voice:
    """The prompts of one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._folder = SOUNDS / language
        lines = gzip.decompress(Path(TEXTS.format(language)).read_bytes()).decode("utf-8-sig").splitlines()
        self._texts: dict[str, str] = {}
        for line in lines:
            name, _, text = line.partition(":")
            if text.strip() and not re.search(r"[\[\](){}]|\.\.\.", text) and line[0] != ";":
                self._texts.setdefault(name.strip(), text.strip())
        self.digits = {str(digit): self._texts[f"digits/{digit}"] for digit in range(10) if digit}
        self.digits["0"] = {"es": "cero"}.get(language) or self._texts["digits/0"]

    def clips(self, kind: str, count: int, seed: int) -> list[Spoken]:
        """`count` clips of a kind, the same ones for the same seed."""
        chance = random.Random(f"{seed} {kind} {self.language}")
        if kind == "digits":
            return [self._digits(chance, 3 + number * 13 // max(1, count - 1)) for number in range(count)]
        if kind == "stretches":
            return [self._stretch(chance) for _ in range(count)]
        names = sorted(name for name in self._texts if self._is_of(kind, name) and self._file(name).exists())
        return [self._prompt(kind, name) for name in chance.sample(names, min(count, len(names)))]

    def _is_of(self, kind: str, name: str) -> bool:
        text, length = self._texts[name], len(self._texts[name].split())
        match kind:
            case "letters":
                return bool(re.fullmatch(r"letters/[a-z]", name))
            case "numbers":
                return bool(re.fullmatch(r"digits/[1-9]0|digits/1[1-9]", name))
        plain = "/" not in name and not re.search(r"tone|beep|music", text, re.IGNORECASE)
        match kind:
            case "words":
                return (plain or name.startswith(("digits/day-", "digits/mon-"))) and length == 1
            case "answers":
                return plain and 2 <= length <= 3
            case _:
                return plain and 6 <= length <= 24

    def _prompt(self, kind: str, name: str) -> Spoken:
        also = name.removeprefix("digits/") if kind == "numbers" else ""
        return Spoken(kind, self.language, self._texts[name], _in_silence(self._read(name)), also)

    def _digits(self, chance: random.Random, length: int) -> Spoken:
        spoken_digits = [str(chance.randrange(10)) for _ in range(length)]
        pieces = []
        for digit in spoken_digits:
            pieces += [self._trimmed(f"digits/{digit}"), _silence(chance.uniform(*DIGIT_PAUSE_SECONDS))]
        text = " ".join(self.digits[digit] for digit in spoken_digits)
        return Spoken("digits", self.language, text, _in_silence(np.concatenate(pieces)), "".join(spoken_digits))

    def _stretch(self, chance: random.Random) -> Spoken:
        """Sentences with short pauses between them, so that they are one utterance."""
        names = sorted(name for name in self._texts if self._is_of("sentences", name) and self._file(name).exists())
        most, pieces, texts, length = chance.uniform(*STRETCH_SECONDS), [], [], 0
        for name in chance.sample(names, len(names)):
            piece = self._trimmed(name)
            if length + len(piece) <= most * RATE:
                pieces += [piece, _silence(SENTENCE_PAUSE_SECONDS)]
                texts.append(self._texts[name])
                length += len(piece)
        return Spoken("stretches", self.language, " ".join(texts), _in_silence(np.concatenate(pieces)))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.wav"

    def _read(self, name: str) -> Samples:
        samples, rate = soundfile.read(self._file(name), dtype="float32")
        return np.round(np.clip(soxr.resample(samples, rate, RATE), -1, 1) * 32767).astype(np.int16)

    def _trimmed(self, name: str) -> Samples:
        samples = self._read(name)
        start, end = whole_span(samples)
        return samples[start:end]


def _silence(seconds: float) -> Samples:
    """Silence as of a microphone, without digital zeros."""
    count = int(seconds * RATE)
    return np.random.default_rng(count).integers(-2, 3, count).astype(np.int16)


def _in_silence(samples: Samples) -> Samples:
    return np.concatenate([_silence(MARGIN_SECONDS), samples, _silence(MARGIN_SECONDS)])


class Judge:
    """Compares texts with their references."""

    def __init__(self, voice: Voice) -> None:
        self._language = voice.language
        self._digit_of = {word: digit for digit, text in voice.digits.items() for word in words(text, voice.language)}

    def note(self, outcome: Outcome, spoken: Spoken) -> None:
        found = errors(spoken.text, outcome.text, self._language)
        outcome.words, outcome.found = found.total, max(0, found.total - found.wrong)
        outcome.right = found.total > 0 and found.wrong <= RIGHT_SHARE * found.total
        if (spoken.also and self._in_digits(outcome.text) == spoken.also) or "".join(
            words(outcome.text, self._language)
        ) == "".join(words(spoken.text, self._language)):
            outcome.right, outcome.found = True, found.total

    def _in_digits(self, text: str) -> str:
        tokens = re.findall(r"[^\W\d_]+|\d", text.casefold())
        normal = [each if each.isdigit() else " ".join(words(each, self._language)) for each in tokens]
        return "".join(self._digit_of.get(each, each) for each in normal)


class Run:
    """Runs clips through sessions, and lost ones through the full window."""

    def __init__(self, engine: Engine, transcriber: Transcriber, vad: SileroVad, language: str | None) -> None:
        self._engine = engine
        self._transcriber = transcriber
        self._vad = vad
        self._language = language
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def each(self, spoken: Iterable[Spoken], model: str, noise: str, judges: dict[str, Judge]) -> list[Outcome]:
        async def one(clip: Spoken) -> Outcome:
            async with self._turns:
                outcome = await self._session(clip, model, noise)
            judges[clip.language].note(outcome, clip)
            if not outcome.has_text:
                outcome.in_full = await asyncio.to_thread(self._in_full, clip, MODELS[model])
            return outcome

        return await asyncio.gather(*map(one, spoken))

    async def _session(self, clip: Spoken, model: str, noise: str) -> Outcome:
        outcome = Outcome(clip.kind, clip.language, model, noise, clip.also or clip.text)
        outcome.seconds = len(clip.samples) / RATE
        options = SessionOptions(language=self._language or clip.language, model=model, partials=False)
        finals: list[Utterance] = []
        async with Session(options, self._vad.stream(), self._engine) as session:

            async def read() -> None:
                async for event in session:
                    match event:
                        case SpeechStarted():
                            outcome.detected = True
                        case Ended(utterances=utterances):
                            finals.extend(utterances)

            reading = asyncio.create_task(read())
            for start in range(0, len(clip.samples), int(STEP_SECONDS * RATE)):
                await session.push(clip.samples[start : start + int(STEP_SECONDS * RATE)].tobytes())
            await session.finish()
            await reading
        outcome.text = " ".join(final.text for final in finals)
        outcome.languages = tuple(final.language for final in finals)
        return outcome

    def _in_full(self, clip: Spoken, beams: int) -> str:
        """The text of a clip with the full window, without hallucinations."""
        samples = clip.samples.astype(np.float32) / 32768
        whole = self._transcriber.with_beams(beams)
        texts = []
        for stretch in _stretches(samples, self._vad):
            asked = UtteranceAudio(samples[stretch.start : stretch.end], None if self._language else clip.language)
            (hypothesis,) = whole.transcribe([asked], whole.full_window)
            texts += [hypothesis.text] * (not hypothesis.invented)
        return " ".join(filter(None, texts))


def _stretches(samples: np.ndarray, vad: SileroVad) -> list[SpeechSegment]:
    """The speech segments that a session finds."""
    segmenter, found = Segmenter(VadOptions()), []
    for window in vad.stream().push(np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES))):
        found += segmenter.push(window)
    found += segmenter.flush(len(samples))
    return [each for each in found if isinstance(each, SpeechSegment)]


async def measure(options: argparse.Namespace, found: Sequence[Spoken], judges: dict[str, Judge]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    directory = resolve(options.weights, InferenceSettings().cache_dir, lambda _: None)
    device = choose_device("auto")
    transcriber = Transcriber(directory, device, choose_precision(device))
    settings = InferenceSettings(
        models=dict.fromkeys(options.models, options.weights),
        beams={model: MODELS[model] for model in options.models},
        spare_beams=1,
    )
    async with Engine(settings, queue_limit=1000) as engine:
        run = Run(engine, transcriber, SileroVad(), AUTO if options.auto else None)
        for noise in options.noise:
            spoken = found
            if noise != "clean":
                spoken = [
                    replace(clip, samples=noisy(clip.samples, float(noise), [options.seed, number]))
                    for number, clip in enumerate(found)
                ]
            for model in options.models:
                started = time.process_time()
                of_both = await run.each(spoken, model, noise, judges)
                outcomes += of_both
                print(f"{noise}, {model}: {time.process_time() - started:.0f} s of CPU\n", flush=True)
                print("\n".join(table(of_both)) + "\n", flush=True)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Results by noise, model and kind."""
    head = [
        "noise",
        "model (beams)",
        "kind",
        "clips",
        "detected",
        "recall",
        "right",
        "words",
        "lost, in the full window",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for noise, model in dict.fromkeys((each.noise, each.model) for each in outcomes):
        of_both = [each for each in outcomes if (each.noise, each.model) == (noise, model)]
        for kind in (*KINDS, "all"):
            some = [each for each in of_both if kind in (each.kind, "all")]
            if some:
                cells = [noise, f"{model} ({MODELS[model]})", kind, *_cells(some)]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def language_table(outcomes: Sequence[Outcome]) -> list[str]:
    head = ["language", "clips", "detected", "recall", "right", "words", "lost, in the full window"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for language in dict.fromkeys(each.language for each in outcomes):
        some = [each for each in outcomes if each.language == language]
        lines.append(f"| {language} | {' | '.join(_cells(some))} |")
    return lines


def _cells(some: Sequence[Outcome]) -> list[str]:
    detected = [each for each in some if each.detected]
    return [
        str(len(some)),
        str(len(detected)),
        f"{sum(each.has_text for each in detected)} of {len(detected)}",
        f"{sum(each.right for each in some)} ({100 * sum(each.right for each in some) / len(some):.0f} %)",
        f"{100 * sum(each.found for each in some) / max(1, sum(each.words for each in some)):.1f} %",
        str(sum(bool(each.in_full) for each in some)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="base", help="an offline name, a directory or a hub id")
    parser.add_argument("--each", type=int, default=10, help="clips of each kind and language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--auto", action="store_true", help="have the language detected")
    for name, default in (("models", ",".join(MODELS)), ("languages", ",".join(LANGUAGES)), ("kinds", ",".join(KINDS))):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=default.split(","))
    parser.add_argument(
        "--noise",
        type=lambda text: text.split(","),
        default=["clean", "10"],
        help="clean, or decibels above pink noise",
    )
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="write the result for each clip to FILE")
    options = parser.parse_args()
    configure_logging("WARNING", "text")
    voices = [Voice(language) for language in options.languages]
    found = [
        clip for voice in voices for kind in options.kinds for clip in voice.clips(kind, options.each, options.seed)
    ]
    print(f"\n{machine()}; commit {commit()}; {load()}; {options.weights}, {len(found)} clips\n", flush=True)
    outcomes = asyncio.run(measure(options, found, {voice.language: Judge(voice) for voice in voices}))
    if options.evidence:
        with options.evidence.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in outcomes)
    print("\n".join(language_table(outcomes)))


if __name__ == "__main__":
    main()
