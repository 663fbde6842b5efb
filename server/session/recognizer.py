"""The recognizer as sessions use it."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Protocol

from server.audio.decoder import MODEL_RATE, Samples
from server.inference.recognition import TEXT_ONLY, Recognition, RecognitionOptions
from server.inference.scheduling.session_key import SessionKey
from server.session.language import SpokenLanguage
from server.session.options import SessionOptions


class Recognizer(Protocol):
    """Transcribes utterances."""

    async def recognize(
        self,
        model: str,
        samples: Samples,
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: Hashable = None,
    ) -> Recognition:
        """Transcribes mono 16 kHz audio. If `language` is None it is detected. Cancelling the call drops the work."""

    async def recognize_partial(
        self,
        model: str,
        samples: Samples,
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: Hashable,
    ) -> Recognition | None:
        """Transcribes the beginning of an utterance. Returns None if the model has no time for it."""


class SessionRecognizer:
    """A recognizer with the options of one session."""

    def __init__(self, recognizer: Recognizer, options: SessionOptions, session_key: SessionKey) -> None:
        self._recognizer = recognizer
        self._options = options
        self._session_key = session_key

    async def recognize(
        self, samples: Samples, language: SpokenLanguage, speech: tuple[tuple[int, int], ...]
    ) -> Recognition:
        """Transcribes an utterance.

        Args:
            samples: mono, 16 kHz.
            language: the language of the session.
            speech: the stretches with detected speech, in samples.
        """
        options = replace(
            self._common_options(language),
            words=self._options.words,
            speech=tuple((start / MODEL_RATE, end / MODEL_RATE) for start, end in speech),
        )
        return await self._recognizer.recognize(
            self._options.model, samples, language.requested, options, session=self._session_key
        )

    async def recognize_partial(
        self, samples: Samples, language: SpokenLanguage, draft: tuple[int, ...]
    ) -> Recognition | None:
        """Transcribes the beginning of an utterance. Returns None if the model has no time for it.

        Args:
            samples: mono, 16 kHz.
            language: the language of the session.
            draft: the decoded tokens of an earlier pass over less of the same audio.
        """
        options = replace(self._common_options(language), draft=draft)
        return await self._recognizer.recognize_partial(
            self._options.model, samples, language.requested, options, session=self._session_key
        )

    def _common_options(self, language: SpokenLanguage) -> RecognitionOptions:
        return RecognitionOptions(bias_terms=self._options.bias_terms, expected_language=language.expected)
