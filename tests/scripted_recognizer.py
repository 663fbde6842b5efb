"""A recognizer that needs no model: its windows have a fixed length, and its text describes the samples it received.

`python -m tests.scripted_recognizer` is a worker with it, for tests that kill the process.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from domain.job import JobRequest
from domain.transcript import TimedWord, Utterance
from server.audio.decoder import MODEL_RATE
from worker.jobs.recognizer import Audio, Plan

_BLOCK = 10 * MODEL_RATE


@dataclass(frozen=True)
class ScriptedPlan:
    """Windows of one length, but for the last."""

    language: str
    bounds: tuple[float, ...]

    @property
    def ends(self) -> Sequence[float]:
        return self.bounds[1:]

    def to_json(self) -> Any:
        return {"language": self.language, "bounds": list(self.bounds)}


@dataclass(frozen=True)
class ScriptedJudgement:
    outcome: Literal["accepted", "doubtful", "no_speech"]
    reason: str = ""
    defect: str | None = None


class ScriptedRecognizer:
    """Describes what it receives. Two windows differ in their text if any of their samples differ."""

    models = frozenset({"fast", "accurate"})

    def __init__(self, window_seconds: float = 1.0, busy_seconds: float = 0.0, note: Path | None = None) -> None:
        """
        Args:
            window_seconds: the length of a window.
            busy_seconds: how long a window takes.
            note: a file to which a line is added for each window that is begun.
        """
        self._window_seconds = window_seconds
        self._busy_seconds = busy_seconds
        self._note = note
        self.listened = 0
        self.windows: list[int] = []

    def supports(self, model: str, language: str) -> bool:
        return model in self.models and language != "xx"

    def listen(self, request: JobRequest, audio: Audio) -> Plan:
        self.listened += 1
        read = 0
        for first in range(0, audio.length, _BLOCK):
            read += len(audio.read(first, first + _BLOCK))
        seconds = read / MODEL_RATE
        count = int(seconds // self._window_seconds)
        bounds = [self._window_seconds * number for number in range(count + 1)]
        if seconds - bounds[-1] > 0.01:
            bounds.append(seconds)
        return ScriptedPlan("en" if request.language == "auto" else request.language, tuple(bounds))

    def plan_of(self, json: Any) -> Plan:
        try:
            return ScriptedPlan(json["language"], tuple(json["bounds"]))
        except (TypeError, KeyError) as error:
            raise ValueError("not a plan") from error

    def recognize(self, request: JobRequest, plan: Plan, number: int, audio: Audio) -> Sequence[Utterance]:
        assert isinstance(plan, ScriptedPlan)
        begin, end = plan.bounds[number], plan.bounds[number + 1]
        samples = audio.read(round(begin * MODEL_RATE), round(end * MODEL_RATE))
        self.windows.append(number)
        if self._note is not None:
            with self._note.open("a") as file:
                file.write(f"{number}\n")
        time.sleep(self._busy_seconds)
        if not np.any(samples):
            return []
        words = ["window", str(number), hashlib.sha256(samples.tobytes()).hexdigest()[:16]]
        step = (end - begin) / len(words)
        timed = [TimedWord(word, begin + step * at, begin + step * (at + 1), 0.5) for at, word in enumerate(words)]
        return [Utterance(begin, end, " ".join(words), 0.1 * (number % 10), plan.language, 1 / 3, tuple(timed))]

    def judge(
        self, plan: Plan, new: Sequence[Utterance], live: Sequence[Utterance], session_language: str
    ) -> ScriptedJudgement:
        if live and not new:
            return ScriptedJudgement("no_speech", "The new transcript is empty, and the live one is not.", "no_speech")
        if sum(each.word_count for each in live) > 2 * sum(each.word_count for each in new):
            return ScriptedJudgement("doubtful", "The new transcript has few words.", "few_words")
        return ScriptedJudgement("accepted")


def main() -> int:
    from worker import app

    window = float(os.environ.get("SCRIPTED_WINDOW_SECONDS", "1"))
    busy = float(os.environ.get("SCRIPTED_BUSY_SECONDS", "0"))
    note = os.environ.get("SCRIPTED_NOTE")
    return app.main(lambda _settings: ScriptedRecognizer(window, busy, Path(note) if note else None))


if __name__ == "__main__":
    sys.exit(main())
