"""What is written where nobody speaks, and what the guard takes away where somebody does.

    python benchmarks/non_speech.py                              352 sounds, speech of the sample recording
    python benchmarks/non_speech.py --manifest clips.tsv         columns: file (16 kHz mono), language, reference
    python benchmarks/non_speech.py --weights tiny.en --each 8 --evidence evidence.jsonl
    python benchmarks/non_speech.py --manifest clips.tsv --each 0 --snr 5     speech alone, with noise under it

Every sound goes through a whole session, detector, partials and all, which is what a user gets; and straight to the
engine as one utterance, which is what the guard can do alone. The language of every other sound is to be detected, of
the rest it is told. Speech goes straight to the engine: what the guard takes away there was said.
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
from hearing import Errors, errors
from noises import BABBLE, KINDS, Sound, noisy, sounds
from numpy.typing import NDArray
from provenance import commit, load, machine
from speech import RATE, Clip, clips, spread

from server.inference.config import InferenceSettings
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.scheduling.engine import Engine
from server.session.events import Final, Partial, SpeechStarted
from server.session.options import AUTO, SessionOptions
from server.session.session import Session
from server.vad.silero import SileroVad
from telemetry.logs import configure_logging

MODELS = ("fast", "accurate")
TOLD_LANGUAGES = ("en", "es", "de", "fr", "ja", "ru")
STEP_SECONDS = 0.5
"""Of audio that a session is given at a time."""
PACE = 2.0
"""Times the pace of speech at which a session goes on once it hears some: its partials have time then."""
AT_ONCE = 8
LONGEST_PARTIAL_SECONDS = 4.0


@dataclass
class Outcome:
    """What became of one clip on one way through."""

    way: str
    model: str
    kind: str
    """Of sound, or the language that is spoken."""
    seconds: float
    reference: str = ""
    """What is said in it."""
    heard: bool = False
    """Whether speech was detected."""
    finals: list[str] = field(default_factory=list)
    partials: list[str] = field(default_factory=list)
    hypotheses: list[tuple[str, Hypothesis]] = field(default_factory=list)
    """All that the model wrote, and whether for a partial or a final."""

    def suppressed(self, kind: str) -> list[str]:
        """Why texts of this kind were not believed."""
        return [reason for of, hypothesis in self.hypotheses if of == kind and (reason := hypothesis.invented)]


_outcome: ContextVar[Outcome] = ContextVar("outcome")


class WatchedEngine(Engine):
    """Notes what the model wrote before it is judged."""

    async def _run(self, model: str, utterance: UtteranceAudio, session: Hashable, *, is_partial: bool) -> Hypothesis:
        hypothesis = await super()._run(model, utterance, session, is_partial=is_partial)
        _outcome.get().hypotheses.append(("partial" if is_partial else "final", hypothesis))
        return hypothesis


class Run:
    """One set of weights with all that goes through it."""

    def __init__(self, engine: WatchedEngine, vad: SileroVad) -> None:
        self._engine = engine
        self._vad = vad
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def each(self, works: Iterable[Awaitable[Outcome]]) -> list[Outcome]:
        """A few at a time."""

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
                if outcome.heard:
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
        assert recognition, "no final was before it"
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
                outcome.heard = True
            case Final(text):
                outcome.finals.append(text)
            case Partial(text):
                outcome.partials.append(text)


def _floats(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return (samples / 32768).astype(np.float32)


def _languages(engine: Engine, found: Sequence[Sound]) -> list[str | None]:
    """None for every other sound, and for all that a model of one language hears."""
    told = [TOLD_LANGUAGES[number // 2 % len(TOLD_LANGUAGES)] if number % 2 else None for number in range(len(found))]
    return [language if language and engine.supports(MODELS[0], language) else None for language in told]


async def measure(weights: str, found: Sequence[Sound], alone: int, spoken: Sequence[Clip]) -> list[Outcome]:
    """Everything through these weights. `alone`: sounds of each kind that go straight to the engine."""
    settings = InferenceSettings(models=dict.fromkeys(MODELS, weights))
    async with WatchedEngine(settings, queue_limit=1000) as engine:
        run = Run(engine, SileroVad())
        told = list(zip(found, _languages(engine, found), strict=True))
        seen: Counter[str] = Counter()
        without_detector = []
        for sound, language in told:
            seen[sound.kind] += 1
            if seen[sound.kind] <= alone:
                without_detector.append((sound, language))
        fitting = [clip for clip in spoken if engine.supports(MODELS[0], clip.language)]
        outcomes = await run.each(run.partial(*each) for each in without_detector)
        for model in MODELS:
            outcomes += await _timed(f"{weights}, {model}, sessions", run.each, (run.session(*e, model) for e in told))
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
    """How many give text, and how many percent of all they are."""
    some = sum(bool(texts(outcome)) for outcome in outcomes)
    return f"{some} of {len(outcomes)} ({100 * some / len(outcomes):.1f} %)" if outcomes else ""


def reasons(found: Iterable[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(found).items())) or "none"


def sound_table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """By weights and way: the sounds that give text."""
    head = ["weights", "way", "speech detected", "with a final", "with a partial", "finals suppressed", "partials"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for weights, all_of in outcomes.items():
        groups = _grouped([each for each in all_of if each.way != "speech"], lambda each: (each.way, each.model))
        for (way, model), group in groups.items():
            for name, some in (
                ("", [e for e in group if e.kind != BABBLE]),
                (f", {BABBLE}", [e for e in group if e.kind == BABBLE]),
            ):
                cells = [
                    weights,
                    f"{way}, {model}{name}",
                    share(some, lambda each: ["heard"] * each.heard) if way == "session" else "",
                    share(some, lambda each: each.finals) if "partial" not in way else "",
                    share(some, lambda each: each.partials) if way != "engine" else "",
                    reasons(reason for each in some for reason in each.suppressed("final")),
                    reasons(reason for each in some for reason in each.suppressed("partial")),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def kind_table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """By kind of sound: how many give a final or a partial, each way."""
    ways = {
        (weights, each.way, each.model): None
        for weights, found in outcomes.items()
        for each in found
        if each.way != "speech"
    }
    lines = [f"| sound | {' | '.join(', '.join(way) for way in ways)} |", "|---" * (len(ways) + 1) + "|"]
    for kind in KINDS:
        cells = []
        for weights, way, model in ways:
            of = [e for e in outcomes[weights] if (e.way, e.model, e.kind) == (way, model, kind)]
            cells.append(f"{sum(bool(each.finals or each.partials) for each in of)} of {len(of)}")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines


def speech_table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """What the guard takes away of what was said."""
    lines = [
        "| weights | utterances | suppressed | right words lost | WER % without the guard | with it |",
        "|---" * 6 + "|",
    ]
    for weights, all_of in outcomes.items():
        for (model,), group in _grouped([e for e in all_of if e.way == "speech"], lambda each: (each.model,)).items():
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
    """A line of JSON for every clip on every way, with all that was written: what the guard's lines are drawn by."""
    with file.open("w", encoding="utf-8") as lines:
        for weights, found in outcomes.items():
            for each in found:
                lines.write(json.dumps({"weights": weights, **asdict(each)}, ensure_ascii=False) + "\n")


def judged_again(file: Path) -> dict[str, list[Outcome]]:
    """What would have become of it with the guard as it is now."""
    outcomes: dict[str, list[Outcome]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        weights = fields.pop("weights")
        written = [(of, Hypothesis(**hypothesis)) for of, hypothesis in fields.pop("hypotheses")]
        outcome = Outcome(**fields, hypotheses=written)
        outcome.finals = [each.text for of, each in written if of == "final" and not each.invented]
        # What a session tells as a partial, tries must agree on: it tells none where none is believed.
        if not any(each.text and not each.invented and not each.failing for of, each in written if of == "partial"):
            outcome.partials = []
        outcomes.setdefault(weights, []).append(outcome)
    return outcomes


def report(outcomes: dict[str, list[Outcome]]) -> None:
    has_sounds = any(each.way != "speech" for found in outcomes.values() for each in found)
    for table in (sound_table, kind_table, speech_table) if has_sounds else (speech_table,):
        print("\n" + "\n".join(table(outcomes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="base,tiny.en", help="offline names, directories or hub ids")
    parser.add_argument("--each", type=int, default=22, help="sounds of each kind")
    parser.add_argument("--alone", type=int, default=22, help="of them, those that go straight to the engine too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="at most so many spoken clips")
    parser.add_argument("--snr", type=float, metavar="DECIBEL", help="put pink noise under the speech")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="write there what was written and judged")
    parser.add_argument(
        "--judge", type=Path, metavar="FILE", help="nothing but judge again what --evidence has written"
    )
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
