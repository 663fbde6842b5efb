"""The message of a final of a session."""

from dalston.v1 import session_pb2 as pb
from dalston.v1.transcription_pb2 import Word

from persistence.postgres.finals import NumberedUtterance


def utterance_message(numbered: NumberedUtterance) -> pb.Utterance:
    """The message of an utterance."""
    utterance = numbered.utterance
    return pb.Utterance(
        index=numbered.index,
        start=utterance.start,
        end=utterance.end,
        text=utterance.text,
        confidence=utterance.confidence,
        language=utterance.language,
        words=[
            Word(word=word.word, text=word.word, start=word.start, end=word.end, confidence=word.confidence)
            for word in utterance.words
        ],
    )
