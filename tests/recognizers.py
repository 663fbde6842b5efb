"""The base class of the tests' recognisers: both calls of the engine as one request."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from server.audio.decoder import Samples
from server.inference.recognition import TEXT_ONLY, Recognition, RecognitionOptions


@dataclass(frozen=True)
class Asked:
    """The arguments of one call of the engine."""

    model: str
    samples: Samples
    language: str | None
    options: RecognitionOptions
    session: object


class Recognizer:
    """Returns the result of `answer`, and of `answer_partial` for partials, which by default has no time."""

    queue_delay = 0.0

    def queue_delay_of(self, tenant: Hashable) -> float:
        return self.queue_delay

    async def answer(self, asked: Asked) -> Recognition:
        raise NotImplementedError

    async def answer_partial(self, asked: Asked) -> Recognition | None:
        return None

    async def recognize(
        self,
        model: str,
        samples: Samples,
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: object = None,
    ) -> Recognition:
        return await self.answer(Asked(model, samples, language, options, session))

    async def recognize_partial(
        self,
        model: str,
        samples: Samples,
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: object,
    ) -> Recognition | None:
        return await self.answer_partial(Asked(model, samples, language, options, session))
