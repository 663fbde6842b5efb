"""Hallucinations over sounds without speech, and speech that the guard suppresses.

    python benchmarks/non_speech.py                              352 sounds, speech of the sample recording
    python benchmarks/non_speech.py --manifest clips.tsv         columns: file (16 kHz mono), language, reference
    python benchmarks/non_speech.py --weights tiny.en --each 8 --evidence evidence.jsonl
    python benchmarks/non_speech.py --manifest clips.tsv --each 0 --snr 5     speech alone, with noise under it

Every sound goes through a whole session, with detector and partials, which is what a client gets; and directly to the
engine as one utterance, which tests the guard alone. The language of every other sound is detected, and requested for
the rest. Speech goes directly to the engine: any text that the guard suppresses there is lost.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from noises import BABBLE, KINDS, Sound, noisy, sounds
from numpy.typing import NDArray
from provenance import commit, load, machine
from scoring import Errors, errors
from speech import RATE, Clip, clips, spread

from server.inference.config import InferenceSettings
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.scheduling.engine import Engine
from server.session.events import FinalResult, PartialResult, SpeechStarted
from server.session.options import AUTO, SessionOptions
from server.session.session import Session
from server.vad.silero import SileroVad
from telemetry.logs import configure_logging

MODELS = ("fast", "accurate")
REQUESTED_LANGUAGES = ("en", "es", "de", "fr", "ja", "ru")
STEP_SECONDS = 0.5
"""Audio that a session receives at a time."""
PACE = 2.0
"""Multiple of real time at which a session continues after speech is detected, so that partials have time."""
AT_ONCE = 8
LONGEST_PARTIAL_SECONDS = 4.0


@dataclass
class Outcome:
    """The result for one clip on one path."""

    path: str
    model: str
    kind: str
    """The kind of sound, or the language of speech."""
    seconds: float
    reference: str = ""
    """Its text."""
    is_detected: bool = False
    """Whether speech was detected."""
    finals: list[str] = field(default_factory=list)
    partials: list[str] = field(default_factory=list)
    hypotheses: list[tuple[str, Hypothesis]] = field(default_factory=list)
    """All hypotheses, and whether for a partial or a final."""

    def suppressed(self, kind: str) -> list[str]:
        """The reasons for which texts of this kind were suppressed."""
        return [reason for of, hypothesis in self.hypotheses if of == kind and (reason := hypothesis.invented)]


_outcome: ContextVar[Outcome] = ContextVar("outcome")


class RecordingEngine(Engine):
    """Records hypotheses before they are judged."""

    async def _run(
        self, model: str, utterance: UtteranceAudio, session: Hashable, *, is_partial: bool
    ) -> tuple[Hypothesis, float]:
        hypothesis, effort = await super()._run(model, utterance, session, is_partial=is_partial)
        _outcome.get().hypotheses.append(("partial" if is_partial else "final", hypothesis))
        return hypothesis, effort


class Run:
    """The runs with one set of weights."""

    def __init__(self, engine: RecordingEngine, vad: SileroVad) -> None:
        self._engine = engine
        self._vad = vad
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def each(self, works: Iterable[Awaitable[Outcome]]) -> list[Outcome]:
        """Runs a few at a time."""

        async def in_turn(work: Awaitable[Outcome]) -> Outcome:
            async with self._turns:
                return await work

        return await asyncio.gather(*(in_turn(work) for work in works))

    async def session(self, sound: Sound, language: str | None, model: str) -> Outcome:
        outcome = Outcome("session", model, sound.kind, sound.seconds)
        _outcome.set(outcome)
        options = SessionOptions(language=language or AUTO, model=model)
        async with Session(options, self._vad.stream(), self._engine) as session:
            reading = asyncio.create_task(_read(session, outcome))
            for start in range(0, len(sound.samples), int(STEP_SECONDS * RATE)):
                await session.push(sound.samples[start : start + int(STEP_SECONDS * RATE)].tobytes())
                if outcome.is_detected:
                    await asyncio.sleep(STEP_SECONDS / PACE)
            await session.finish()
            await reading
        return outcome

    async def final(self, sound: Sound, language: str | None, model: str) -> Outcome:
        outcome = Outcome("engine", model, sound.kind, sound.seconds)
        _outcome.set(outcome)
        recognition = await self._engine.recognize(model, _floats(sound.samples), language, session=object())
        outcome.finals = [recognition.text] * bool(recognition.text)
        return outcome

    async def partial(self, sound: Sound, language: str | None) -> Outcome:
        outcome = Outcome("engine, partial", MODELS[0], sound.kind, sound.seconds)
        _outcome.set(outcome)
        samples = _floats(sound.samples[: int(LONGEST_PARTIAL_SECONDS * RATE)])
        recognition = await self._engine.recognize_partial(MODELS[0], samples, language, session=object())
        assert recognition, "the partial was dropped"
        outcome.partials = [recognition.text] * bool(recognition.text)
        return outcome

    async def speech(self, clip: Clip, model: str) -> Outcome:
        outcome = Outcome("speech", model, clip.language, clip.seconds, clip.text)
        _outcome.set(outcome)
        recognition = await self._engine.recognize(model, _floats(clip.samples), clip.language, session=object())
        outcome.finals = [recognition.text] * bool(recognition.text)
        return outcome


async def _read(session: Session, outcome: Outcome) -> None:
    async for event in session:
        match event:
            case SpeechStarted():
                outcome.is_detected = True
            case FinalResult(utterance):
                outcome.finals.append(utterance.text)
            case PartialResult(text):
                outcome.partials.append(text)


def _floats(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return (samples / 32768).astype(np.float32)


def _languages(engine: Engine, found: Sequence[Sound]) -> list[str | None]:
    """The language to request for each sound: None for every other one, and for languages the model does not
    support."""
    requested = [
        REQUESTED_LANGUAGES[number // 2 % len(REQUESTED_LANGUAGES)] if number % 2 else None
        for number in range(len(found))
    ]
    return [language if language and engine.supports(MODELS[0], language) else None for language in requested]


async def measure(weights: str, found: Sequence[Sound], alone: int, spoken: Sequence[Clip]) -> list[Outcome]:
    """Runs everything with these weights. `alone`: sounds of each kind that go directly to the engine."""
    settings = InferenceSettings(models=dict.fromkeys(MODELS, weights))
    async with RecordingEngine(settings, queue_limit=1000) as engine:
        run = Run(engine, SileroVad())
        with_language = list(zip(found, _languages(engine, found), strict=True))
        seen: Counter[str] = Counter()
        without_detector = []
        for sound, language in with_language:
            seen[sound.kind] += 1
            if seen[sound.kind] <= alone:
                without_detector.append((sound, language))
        fitting = [clip for clip in spoken if engine.supports(MODELS[0], clip.language)]
        outcomes = await run.each(run.partial(*each) for each in without_detector)
        for model in MODELS:
            outcomes += await _timed(
                f"{weights}, {model}, sessions", run.each, (run.session(*e, model) for e in with_language)
            )
            outcomes += await _timed(
                f"{weights}, {model}, engine", run.each, (run.final(*each, model) for each in without_detector)
            )
            outcomes += await _timed(f"{weights}, {model}, speech", run.each, (run.speech(c, model) for c in fitting))
        return outcomes


async def _timed(
    name: str,
    work: Callable[[Iterable[Awaitable[Outcome]]], Awaitable[list[Outcome]]],
    of: Iterable[Awaitable[Outcome]],
) -> list[Outcome]:
    started = time.perf_counter()
    outcomes = await work(of)
    print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return outcomes


def share(outcomes: Sequence[Outcome], texts: Callable[[Outcome], Sequence[str]]) -> str:
    """How many have text, as a number and in percent."""
    some = sum(bool(texts(outcome)) for outcome in outcomes)
    return f"{some} of {len(outcomes)} ({100 * some / len(outcomes):.1f} %)" if outcomes else ""


def reasons(found: Iterable[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(found).items())) or "none"


def sound_table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """The sounds with text, by weights and path."""
    head = ["weights", "path", "speech detected", "with a final", "with a partial", "finals suppressed", "partials"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for weights, all_of in outcomes.items():
        groups = _grouped([each for each in all_of if each.path != "speech"], lambda each: (each.path, each.model))
        for (path, model), group in groups.items():
            for name, some in (
                ("", [e for e in group if e.kind != BABBLE]),
                (f", {BABBLE}", [e for e in group if e.kind == BABBLE]),
            ):
                cells = [
                    weights,
                    f"{path}, {model}{name}",
                    share(some, lambda each: ["detected"] * each.is_detected) if path == "session" else "",
                    share(some, lambda each: each.finals) if "partial" not in path else "",
                    share(some, lambda each: each.partials) if path != "engine" else "",
                    reasons(reason for each in some for reason in each.suppressed("final")),
                    reasons(reason for each in some for reason in each.suppressed("partial")),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def kind_table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """The sounds with a final or a partial, by kind and path."""
    paths = {
        (weights, each.path, each.model): None
        for weights, found in outcomes.items()
        for each in found
        if each.path != "speech"
    }
    lines = [f"| sound | {' | '.join(', '.join(path) for path in paths)} |", "|---" * (len(paths) + 1) + "|"]
    for kind in KINDS:
        cells = []
        for weights, path, model in paths:
            of = [e for e in outcomes[weights] if (e.path, e.model, e.kind) == (path, model, kind)]
            cells.append(f"{sum(bool(each.finals or each.partials) for each in of)} of {len(of)}")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines


def speech_table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """The speech that the guard suppresses."""
    lines = [
        "| weights | utterances | suppressed | right words lost | WER % without the guard | with it |",
        "|---" * 6 + "|",
    ]
    for weights, all_of in outcomes.items():
        for (model,), group in _grouped([e for e in all_of if e.path == "speech"], lambda each: (each.model,)).items():
            without, with_it, lost = Errors(), Errors(), 0
            for each in group:
                bare = errors(each.reference, each.hypotheses[-1][1].text, each.kind)
                judged = errors(each.reference, " ".join(each.finals), each.kind)
                without, with_it, lost = without + bare, with_it + judged, lost + max(0, judged.wrong - bare.wrong)
            suppressed = reasons(reason for each in group for reason in each.suppressed("final"))
            cells = [f"{weights}, {model}", str(len(group)), suppressed, str(lost)]
            lines.append(f"| {' | '.join(cells)} | {100 * without.rate:.2f} | {100 * with_it.rate:.2f} |")
    return lines


def _grouped(
    found: Iterable[Outcome], key: Callable[[Outcome], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Outcome]]:
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for each in found:
        groups.setdefault(key(each), []).append(each)
    return groups


def write_evidence(outcomes: dict[str, list[Outcome]], file: Path) -> None:
    """Writes a line of JSON for every clip and path, with all hypotheses, to choose the guard's thresholds by."""
    with file.open("w", encoding="utf-8") as lines:
        for weights, found in outcomes.items():
            for each in found:
                lines.write(json.dumps({"weights": weights, **asdict(each)}, ensure_ascii=False) + "\n")


def judged_again(file: Path) -> dict[str, list[Outcome]]:
    """The recorded outcomes as the current guard would judge them."""
    outcomes: dict[str, list[Outcome]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        weights = fields.pop("weights")
        recorded = [(of, Hypothesis(**hypothesis)) for of, hypothesis in fields.pop("hypotheses")]
        outcome = Outcome(**fields, hypotheses=recorded)
        outcome.finals = [each.text for of, each in recorded if of == "final" and not each.invented]
        # A session sends a partial only if passes agree on it: none if all of them are suppressed.
        if not any(each.text and not each.invented and not each.failing for of, each in recorded if of == "partial"):
            outcome.partials = []
        outcomes.setdefault(weights, []).append(outcome)
    return outcomes


def report(outcomes: dict[str, list[Outcome]]) -> None:
    has_sounds = any(each.path != "speech" for found in outcomes.values() for each in found)
    for table in (sound_table, kind_table, speech_table) if has_sounds else (speech_table,):
        print("\n" + "\n".join(table(outcomes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="base,tiny.en", help="offline names, directories or hub ids")
    parser.add_argument("--each", type=int, default=22, help="sounds of each kind")
    parser.add_argument("--alone", type=int, default=22, help="of them, those that also go directly to the engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="at most so many spoken clips")
    parser.add_argument("--snr", type=float, metavar="DECIBEL", help="add pink noise to the speech")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="write all hypotheses to FILE")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="only judge the hypotheses of --evidence again")
    options = parser.parse_args()
    if options.judge:
        report(judged_again(options.judge))
        return
    configure_logging("WARNING", "text")
    found = sounds(options.seed, options.each)
    spoken = spread(clips(options.manifest), options.limit)
    if options.snr is not None:
        spoken = [
            replace(clip, samples=noisy(clip.samples, options.snr, [options.seed, number]))
            for number, clip in enumerate(spoken)
        ]
    seconds = sum(sound.seconds for sound in found)
    print(
        f"\n{machine()}; commit {commit()}; {load()}; {len(found)} sounds of {len(KINDS)} kinds, "
        f"mean {seconds / max(1, len(found)):.1f} s; {len(spoken)} spoken clips"
        + (f", {options.snr:g} dB above pink noise\n" if options.snr is not None else "\n"),
        flush=True,
    )
    outcomes = {}
    for weights in options.weights.split(","):
        outcomes[weights] = asyncio.run(measure(weights, found, options.alone, spoken))
    if options.evidence:
        write_evidence(outcomes, options.evidence)
    report(outcomes)


if __name__ == "__main__":
    main()
