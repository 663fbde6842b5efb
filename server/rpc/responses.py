"""Conversion of the events of a session to messages."""

from dalston.v1 import transcription_pb2 as pb

from domain.transcript import Utterance
from server.session.events import (
    Acknowledged,
    ContainerFound,
    Ended,
    Event,
    FinalResult,
    Flushed,
    PartialResult,
    SpeechEnded,
    SpeechStarted,
    SpeechSuppressed,
    Terminating,
)


def response_of(event: Event, session_id: str) -> pb.TranscribeResponse:
    """The message for `event`."""
    match event:
        case SpeechStarted():
            return pb.TranscribeResponse(speech_start=pb.SpeechStart(timestamp=event.timestamp))
        case SpeechEnded():
            return pb.TranscribeResponse(speech_end=pb.SpeechEnd(timestamp=event.timestamp))
        case PartialResult():
            partial = pb.Partial(text=event.text, start=event.start, end=event.end)
            return pb.TranscribeResponse(partial=partial)
        case FinalResult():
            return pb.TranscribeResponse(final=_final(event.utterance))
        case SpeechSuppressed():
            return pb.TranscribeResponse(warning=_suppressed(event))
        case ContainerFound():
            return pb.TranscribeResponse(warning=_container(event))
        case Flushed():
            return pb.TranscribeResponse(flushed=pb.Flushed(timestamp=event.timestamp))
        case Acknowledged():
            # The recording interceptor adds what is stored.
            ack = pb.AudioAck(received_seconds=event.received_seconds, processed_seconds=event.processed_seconds)
            return pb.TranscribeResponse(audio_ack=ack)
        case Terminating():
            return pb.TranscribeResponse(
                session_terminating=pb.SessionTerminating(
                    reason=event.reason, grace_seconds=event.grace_seconds, resume_session_id=session_id
                )
            )
        case Ended():
            return pb.TranscribeResponse(session_end=_session_end(event, session_id))


def _final(utterance: Utterance) -> pb.Final:
    return pb.Final(
        text=utterance.text,
        start=utterance.start,
        end=utterance.end,
        confidence=utterance.confidence,
        language=utterance.language,
        language_probability=utterance.language_probability,
        words=[
            pb.Word(word=word.word, text=word.word, start=word.start, end=word.end, confidence=word.confidence)
            for word in utterance.words
        ],
    )


def _suppressed(event: SpeechSuppressed) -> pb.Warning:
    start, end = (f"{seconds:.6f}".rstrip("0").rstrip(".") for seconds in (event.start, event.end))
    why = "the model returned no text" if event.reason == "empty" else "its text was judged a hallucination"
    return pb.Warning(
        code="speech_suppressed",
        message=f"an utterance has no final: {why}",
        details={"start": start, "end": end, "reason": event.reason},
    )


def _container(event: ContainerFound) -> pb.Warning:
    return pb.Warning(
        code="container_audio",
        message=(
            f"the audio begins like a file ({event.format}), but raw samples are expected: decode it first,"
            " or leave out its header"
        ),
        details={"format": event.format},
    )


def _session_end(event: Ended, session_id: str) -> pb.SessionEnd:
    return pb.SessionEnd(
        session_id=session_id,
        total_duration=event.total_duration,
        total_speech_duration=event.total_speech_duration,
        transcript=event.transcript,
        segments=[pb.SessionEnd.Segment(start=each.start, end=each.end, text=each.text) for each in event.utterances],
    )
