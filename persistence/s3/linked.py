"""Sessions that continue one another, joined into one recording and onto one time. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from domain.errors import AudioNotStored, SessionActive, TranscriptNotStored
from domain.session import SessionStatus
from domain.session_id import format_session_id
from domain.transcript import Utterance
from persistence.s3.byte_map import ByteMap, Given, Piece, Repeated, Stored
from persistence.s3.keys import audio_key
from persistence.wav import WavFormat


@dataclass(frozen=True, slots=True)
class Link:
    """A session of a chain, as far as joining goes."""

    id: UUID
    status: SessionStatus
    language: str
    encoding: str
    sample_rate: int
    channels: int
    store_audio: bool
    store_transcript: bool
    audio_uri: str | None
    transcript_uri: str | None
    audio_duration_seconds: float
    utterance_count: int
    word_count: int
    stored_bytes: int
    """Audio in its WAV file, the header not counted."""
    resume_from_seconds: float | None
    """Where in the audio of the link before this one begins; None: where that ends."""

    @property
    def session_id(self) -> str:
        """The public form of the id."""
        return format_session_id(self.id)

    @property
    def wav(self) -> WavFormat:
        """What its audio is."""
        return WavFormat(self.encoding, self.sample_rate, self.channels)

    def require_audio(self) -> None:
        """Makes sure that its audio can be read.

        Raises:
            AudioNotStored: it did not store it.
            SessionActive: it is running, or not stored to its end yet.
        """
        if not self.store_audio:
            raise AudioNotStored(self.session_id)
        _require_stored(self.session_id, self.status, self.audio_uri)

    def require_transcript(self) -> None:
        """Makes sure that its transcript can be read.

        Raises:
            TranscriptNotStored: it did not store it.
            SessionActive: it is running, or not stored to its end yet.
        """
        if not self.store_transcript:
            raise TranscriptNotStored(self.session_id)
        _require_stored(self.session_id, self.status, self.transcript_uri)


def _require_stored(session_id: str, status: SessionStatus, uri: str | None) -> None:
    if status == "active":
        raise SessionActive(session_id)
    if uri is None:
        raise SessionActive(session_id, "is not stored to its end yet: try again in a while")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a session gives to the whole, on the time of its own audio."""

    link: Link
    offset_frames: int
    """Where in the whole its first frame is."""
    frames: int | None
    """How much of it: up to where the next one begins, which may be behind its end. None for the last, which gives all
    it has."""

    @property
    def offset_seconds(self) -> float:
        """Where in the whole it begins."""
        return self.offset_frames / self.link.sample_rate

    def has(self, utterance: Utterance) -> bool:
        """Whether an utterance of the session belongs to the whole: whether its middle does."""
        if self.frames is None:
            return True
        return (utterance.start + utterance.end) / 2 < self.frames / self.link.sample_rate

    def moved(self, utterance: Utterance) -> Utterance:
        """An utterance of the session on the time of the whole."""
        return utterance.moved(self.offset_seconds) if self.offset_frames else utterance


def stretches(chain: Sequence[Link]) -> tuple[Stretch, ...]:
    """What each session of a chain, oldest first, gives to the whole.

    Raises:
        ValueError: their audio is not of one format.
    """
    if len({link.wav for link in chain}) > 1:
        raise ValueError("the sessions of a chain have one audio format")
    found = []
    offset = 0
    for link, following in zip(chain, (*chain[1:], None), strict=True):
        frames = None if following is None else _frames_before(link, following)
        found.append(Stretch(link, offset, frames))
        offset += frames or 0
    return tuple(found)


def _frames_before(link: Link, following: Link) -> int:
    if following.resume_from_seconds is not None:
        return round(following.resume_from_seconds * link.sample_rate)
    if link.store_audio:
        return link.stored_bytes // link.wav.frame_bytes
    return round(link.audio_duration_seconds * link.sample_rate)


def joined_audio(chain: Sequence[Link]) -> ByteMap:
    """One WAV file of a chain, oldest first.

    Raises:
        AudioNotStored, SessionActive: one of them cannot be read; the message names it.
    """
    for link in chain:
        link.require_audio()
    wav = chain[-1].wav
    audio: list[Piece] = []
    for stretch in stretches(chain):
        there = stretch.link.stored_bytes
        size = there if stretch.frames is None else stretch.frames * wav.frame_bytes
        audio.append(Stored(audio_key(stretch.link.id), wav.header_bytes, min(there, size)))
        audio.append(Repeated(wav.silence, max(0, size - there)))
    audio_bytes = sum(piece.size for piece in audio)
    return ByteMap.of([Given(wav.header(audio_bytes)), *audio, Given(wav.padding(audio_bytes))])


def joined_seconds(chain: Sequence[Link]) -> float:
    """How long a chain is, joined."""
    return stretches(chain)[-1].offset_seconds + chain[-1].audio_duration_seconds


def joined_language(chain: Sequence[Link]) -> str:
    """The language most words of a chain are in, by its sessions' languages; `auto` where nothing was said."""
    words: dict[str, int] = {}
    for link in chain:
        if link.word_count:
            words[link.language] = words.get(link.language, 0) + link.word_count
    return max(words, key=lambda language: words[language]) if words else chain[-1].language
