"""The language of a session, told or to be found out. Pure."""

from server.inference.recognition import Recognition
from server.session.options import AUTO

SETTLING = 0.7
"""Probability from which an utterance tells the language of those that follow: of whole utterances none that reached it
was wrong (of 88 in four languages), of their first seconds alone three of 53."""


class SpokenLanguage:
    """What has been spoken so far, which short and unclear utterances are taken to be in, too.

    The model says when it is sure of another language; then that is the one from there on. A session that asks for
    another makes another of these: utterances that began before it keep theirs, and tell it nothing.
    """

    def __init__(self, asked: str = AUTO) -> None:
        self.told: str | None = None if asked == AUTO else asked
        """ISO 639-1, or None if it is to be found out."""
        self.expected: str | None = None
        """ISO 639-1, or None as long as nothing clear was said."""

    def heard(self, recognition: Recognition) -> None:
        """Takes what an utterance was recognised as; one without a text tells nothing."""
        probability = recognition.language_probability
        if recognition.text and probability is not None and probability >= SETTLING:
            self.expected = recognition.language
