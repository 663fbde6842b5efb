"""The language of a session, requested or detected. Pure."""

from server.inference.recognition import Recognition
from server.session.options import AUTO

ADOPTION_PROBABILITY = 0.7
"""Probability from which the language of an utterance is expected of those that follow. Of 88 whole utterances in four
languages none that reached it was wrong; of their first seconds alone three of 53 were."""


class SpokenLanguage:
    """The language that short and unclear utterances are assumed to be in.

    Once the model is sure of another language, that one is expected from then on. When a session requests another
    language it makes a new object: utterances that began before keep theirs and do not affect the new one.
    """

    def __init__(self, language: str = AUTO) -> None:
        """`language`: ISO 639-1, or `AUTO`."""
        self.requested: str | None = None if language == AUTO else language
        """ISO 639-1, or None if the language is to be detected."""
        self.expected: str | None = None
        """ISO 639-1, or None until an utterance was clear enough."""

    def update(self, recognition: Recognition) -> None:
        """Updates what is expected from an utterance; one without a text changes nothing."""
        probability = recognition.language_probability
        if recognition.text and probability is not None and probability >= ADOPTION_PROBABILITY:
            self.expected = recognition.language
