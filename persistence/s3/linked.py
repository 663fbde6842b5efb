"""Sessions that continue one another, joined into one recording and onto one time. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.transcript import Utterance
from persistence.records import StoredSession
from persistence.s3.byte_map import ByteMap, Given, Piece, Repeated, Stored
from persistence.s3.keys import audio_key


@dataclass(frozen=True, slots=True)
class SessionSpan:
    """What a session gives to the whole, on the time of its own audio."""

    session: StoredSession
    offset_frames: int
    """Where in the whole its first frame is."""
    frames: int | None
    """How much of it: up to where the next one begins, which may be behind its end. None for the last, which gives all
    it has."""

    @property
    def offset_seconds(self) -> float:
        """Where in the whole it begins."""
        return self.offset_frames / self.session.sample_rate

    def has(self, utterance: Utterance) -> bool:
        """Whether an utterance of the session belongs to the whole: whether its middle does."""
        if self.frames is None:
            return True
        return (utterance.start + utterance.end) / 2 < self.frames / self.session.sample_rate

    def moved(self, utterance: Utterance) -> Utterance:
        """An utterance of the session on the time of the whole."""
        return utterance.moved(self.offset_seconds) if self.offset_frames else utterance


def session_spans(chain: Sequence[StoredSession]) -> tuple[SessionSpan, ...]:
    """What each session of a chain, oldest first, gives to the whole.

    Raises:
        ValueError: their audio is not of one format.
    """
    if len({session.wav for session in chain}) > 1:
        raise ValueError("the sessions of a chain have one audio format")
    found = []
    offset = 0
    for session, following in zip(chain, (*chain[1:], None), strict=True):
        frames = None if following is None else _frames_before(session, following)
        found.append(SessionSpan(session, offset, frames))
        offset += frames or 0
    return tuple(found)


def _frames_before(session: StoredSession, following: StoredSession) -> int:
    if following.resume_from_seconds is not None:
        return round(following.resume_from_seconds * session.sample_rate)
    if session.store_audio:
        return session.stored_bytes // session.wav.frame_bytes
    return round(session.audio_duration_seconds * session.sample_rate)


def joined_audio(chain: Sequence[StoredSession]) -> ByteMap:
    """One WAV file of a chain, oldest first.

    Raises:
        AudioNotStored, SessionActive: one of them cannot be read; the message names it.
    """
    for session in chain:
        session.require_audio()
    wav = chain[-1].wav
    audio: list[Piece] = []
    for span in session_spans(chain):
        there = span.session.stored_bytes
        size = there if span.frames is None else span.frames * wav.frame_bytes
        audio.append(Stored(audio_key(span.session.id), wav.header_bytes, min(there, size)))
        audio.append(Repeated(wav.silence, max(0, size - there)))
    audio_bytes = sum(piece.size for piece in audio)
    return ByteMap.of([Given(wav.header(audio_bytes)), *audio, Given(wav.padding(audio_bytes))])


def joined_seconds(chain: Sequence[StoredSession]) -> float:
    """How long a chain is, joined."""
    return session_spans(chain)[-1].offset_seconds + chain[-1].audio_duration_seconds


def joined_language(chain: Sequence[StoredSession]) -> str:
    """The language most words of a chain are in, by its sessions' languages; `auto` where nothing was said."""
    words: dict[str, int] = {}
    for session in chain:
        if session.word_count:
            words[session.language] = words.get(session.language, 0) + session.word_count
    return max(words, key=lambda language: words[language]) if words else chain[-1].language
