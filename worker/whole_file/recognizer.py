"""Everything that transcribes whole recordings, behind one object of the thread that owns the models."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from domain.job import JobRequest
from domain.transcript import Utterance
from server.inference.config import InferenceSettings
from server.inference.decoding.transcriber import Transcriber
from server.inference.weights import resolve
from server.inference.whisper.precision import choose_device, choose_precision
from server.vad.silero import SileroVad
from telemetry.logs import get_logger
from worker.whole_file.guard import Recording, Verdict, compare
from worker.whole_file.listening import Audio, listen
from worker.whole_file.plan import Plan
from worker.whole_file.recognition import PassageRecognition

log = get_logger(__name__)

AUTO = "auto"
"""The language is detected."""


class WholeFileRecognizer:
    """Transcribes recordings, passage by passage. Not to be used by two threads at a time.

    With one thread of torch the same passage of the same plan has the same utterances, whatever was transcribed before.
    """

    def __init__(self, transcribers: Mapping[str, Transcriber]) -> None:
        """`transcribers`: by the name of the model in a request, with the beam size to use."""
        self._transcribers = transcribers
        self._vad = SileroVad()

    @classmethod
    def load(cls, settings: InferenceSettings) -> Self:
        """Loads every configured model. To be called on the thread that uses it, which gets one thread of torch unless
        the settings name a number.

        Raises:
            WeightsError: a model cannot be loaded.
        """
        # The number of threads is a property of the thread that computes.
        torch.set_num_threads(settings.threads or 1)
        device = choose_device(settings.device)
        precision = choose_precision(device)
        loaded: dict[str, Transcriber] = {}
        for weights in sorted(set(settings.models.values())):
            log.info("loading model", weights=weights, device=device.type)
            directory = resolve(weights, settings.cache_dir, lambda line: log.info("preparing model", step=line))
            loaded[weights] = Transcriber(directory, device, precision)
        return cls(
            {
                model: loaded[weights].with_beams(settings.beams.get(model, 1))
                for model, weights in settings.models.items()
            }
        )

    @property
    def models(self) -> frozenset[str]:
        """The names that a request may have."""
        return frozenset(self._transcribers)

    def supports(self, model: str, language: str) -> bool:
        """Whether `model` exists and can transcribe `language`, an ISO 639-1 code or "auto"."""
        transcriber = self._transcribers.get(model)
        return transcriber is not None and (language == AUTO or transcriber.special_tokens.supports(language))

    def listen(self, request: JobRequest, audio: Audio) -> Plan:
        """Reads the whole recording once, and some of its speech again.

        Raises:
            ValueError: the model does not exist, or does not know the language.
        """
        transcriber = self._transcriber(request)
        language = None if request.language == AUTO else request.language
        return listen(audio, self._vad, transcriber.language_chances, language)

    def plan_of(self, json: Any) -> Plan:
        """The plan of `Plan.to_json`.

        Raises:
            ValueError: it is not a plan of this version; the recording has to be listened to again.
        """
        return Plan.from_json(json)

    def recognize(self, request: JobRequest, plan: Plan, number: int, audio: Audio) -> list[Utterance]:
        """The utterances of one passage; times in seconds from the start of the recording.

        Args:
            request: the request of the job.
            plan: the plan of the recording.
            number: of the passage, from 0.
            audio: the recording, of which the passage alone is read.

        Raises:
            ValueError: the model does not exist, or does not know the language.
        """
        passage = plan.passages[number]
        recognition = PassageRecognition(self._transcriber(request), request.vocabulary)
        return recognition.recognize(plan, passage, audio.read(passage.start, passage.end))

    def judge(self, plan: Plan, new: Sequence[Utterance], live: Sequence[Utterance], session_language: str) -> Verdict:
        """Whether a transcript may become the current one. `live` is empty if there is no live transcript."""
        recording = Recording(plan.speech, plan.language, plan.language_probability)
        return compare(new, live, recording, session_language)

    def _transcriber(self, request: JobRequest) -> Transcriber:
        if not self.supports(request.model, request.language):
            raise ValueError(f"model {request.model!r} does not exist or does not transcribe {request.language!r}")
        return self._transcribers[request.model]
