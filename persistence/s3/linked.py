"""Linked sessions, joined into one recording on one time axis. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from persistence.s3.byte_map import ByteMap, Fill, Inline, ObjectRange, Piece
from persistence.s3.keys import audio_key
from persistence.session_values import StoredSession


@dataclass(frozen=True, slots=True)
class SessionSpan:
    """The part of a session that is in the joined recording."""

    session: StoredSession
    offset_frames: int
    """The position of its first sample frame in the joined recording."""
    frames: int | None
    """Its length, up to the start of the next session, which may be after its end. None for the last session, which is
    included completely."""

    @property
    def offset_seconds(self) -> float:
        """Its start in the joined recording."""
        return self.offset_frames / self.session.sample_rate

    @property
    def seconds(self) -> float | None:
        """Its length; None for the last session."""
        return None if self.frames is None else self.frames / self.session.sample_rate


def session_spans(chain: Sequence[StoredSession]) -> tuple[SessionSpan, ...]:
    """The spans of linked sessions, oldest first, in the joined recording.

    Raises:
        ValueError: their audio formats differ.
    """
    if len({session.wav for session in chain}) > 1:
        raise ValueError("linked sessions must have one audio format")
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
    """The joined WAV file of linked sessions, oldest first.

    Raises:
        AudioNotStored, SessionActive: the audio of a session, which the message names, cannot be read.
    """
    for session in chain:
        session.require_audio()
    wav = chain[-1].wav
    audio: list[Piece] = []
    for span in session_spans(chain):
        stored = span.session.stored_bytes
        size = stored if span.frames is None else span.frames * wav.frame_bytes
        audio.append(ObjectRange(audio_key(span.session.id), wav.header_bytes, min(stored, size)))
        audio.append(Fill(wav.silence, max(0, size - stored)))
    audio_bytes = sum(piece.size for piece in audio)
    return ByteMap.of([Inline(wav.header(audio_bytes)), *audio, Inline(wav.padding(audio_bytes))])


def recorded_audio(chain: Sequence[StoredSession]) -> ByteMap:
    """The audio of a session, or the joined audio of linked sessions, oldest first, without the header of a file.

    Raises:
        AudioNotStored, SessionActive: the audio of a linked session, which the message names, cannot be read.
    """
    if len(chain) == 1:
        session = chain[0]
        return ByteMap.of([ObjectRange(audio_key(session.id), session.wav.header_bytes, session.stored_bytes)])
    return ByteMap.of([piece for piece in joined_audio(chain).pieces if isinstance(piece, ObjectRange | Fill)])


def joined_seconds(chain: Sequence[StoredSession]) -> float:
    """The length of the joined recording."""
    return session_spans(chain)[-1].offset_seconds + chain[-1].audio_duration_seconds


def chain_key(chain: Sequence[StoredSession]) -> bytes:
    """Identifies the joined recording: SHA-256 of its sessions and of how much of each is in it."""
    digest = hashlib.sha256()
    for span in session_spans(chain):
        stored = span.session.stored_bytes // span.session.wav.frame_bytes
        digest.update(f"{span.session.id.hex} {stored} {span.frames}\n".encode())
    return digest.digest()
