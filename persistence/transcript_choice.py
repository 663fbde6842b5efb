"""Which stored versions a request for a transcript reads, and what of each of them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from domain.errors import InvalidFilter
from domain.job import TranscriptVersion
from domain.transcript import Utterance
from persistence.s3.keys import transcript_key, version_key
from persistence.s3.linked import chain_key, joined_seconds, session_spans
from persistence.session_values import StoredSession

CURRENT: Final = 0
"""Asks for the current version."""
LIVE: Final = 1
"""The version of the live transcript."""

Versions = Mapping[UUID, Sequence[TranscriptVersion]]
"""The stored versions of each session, in their order."""


class NotStored(Exception):
    """A session whose transcript is asked for has none."""

    def __init__(self, session: StoredSession) -> None:
        super().__init__(session.session_id)
        self.session = session


@dataclass(frozen=True, slots=True)
class TranscriptPart:
    """The utterances of a version whose middles are in a range of time, moved to another time."""

    version: TranscriptVersion
    offset_seconds: float = 0.0
    """What is added to the times."""
    begin: float = 0.0
    """The begin of the range, in seconds of the version."""
    end: float | None = None

    def includes(self, utterance: Utterance) -> bool:
        """Whether the middle of an utterance of the version is in the range."""
        middle = (utterance.start + utterance.end) / 2
        return (not self.begin or self.begin <= middle) and (self.end is None or middle < self.end)

    def moved(self, utterance: Utterance) -> Utterance:
        """An utterance of the version at its new time, which is not before 0."""
        if not self.offset_seconds:
            return utterance
        moved = utterance.moved(self.offset_seconds)
        if moved.start >= 0.0:
            return moved
        words = tuple(replace(each, start=max(0.0, each.start), end=max(0.0, each.end)) for each in moved.words)
        return replace(moved, start=0.0, words=words)


@dataclass(frozen=True, slots=True)
class ChosenTranscript:
    """A transcript as a request reads it."""

    session: StoredSession
    """The session that was asked for, the last one of the joined recording."""
    seconds: float
    """The length of the audio."""
    parts: tuple[TranscriptPart, ...]
    """In the order of their times."""
    document_key: str | None = None
    """The key of the stored document that is this transcript; None where there is none."""

    @property
    def version(self) -> TranscriptVersion | None:
        """The version that all of it is of; None for a join of several versions that a job made."""
        return self.parts[0].version if len(self.parts) == 1 else None

    @property
    def number(self) -> int | None:
        """The number of that version, 1 for a join of live ones; None for another join."""
        if self.version is not None:
            return self.version.version
        return LIVE if all(each.version.kind == "live" for each in self.parts) else None

    @property
    def language(self) -> str:
        """The language of most words, by the languages of the parts; that of the session where there are none."""
        words: dict[str, int] = {}
        for each in (part.version for part in self.parts):
            if each.word_count:
                words[each.language] = words.get(each.language, 0) + each.word_count
        return max(words, key=lambda language: words[language]) if words else self.parts[-1].version.language


def current_of(versions: Sequence[TranscriptVersion]) -> TranscriptVersion | None:
    """The current version of a session; None if it has none."""
    live = next((each for each in versions if each.kind == "live"), None)
    return next((each for each in versions if each.is_current), live)


def version_of(versions: Sequence[TranscriptVersion], wanted: int) -> TranscriptVersion | None:
    """The version of a session that a request names; None if it has no such version."""
    if wanted == CURRENT:
        return current_of(versions)
    return next((each for each in versions if each.version == wanted), None)


def whole(session: StoredSession, version: TranscriptVersion) -> ChosenTranscript:
    """A version as its document has it."""
    key = transcript_key(session.id) if version.kind == "live" else version_key(session.id, version.version)
    return ChosenTranscript(session, version.audio_seconds, (TranscriptPart(version),), key)


def own_part(chain: Sequence[StoredSession], version: TranscriptVersion) -> ChosenTranscript:
    """What a version of the joined recording has of its last session, on the time of that session."""
    session, offset = chain[-1], session_spans(chain)[-1].offset_seconds
    return ChosenTranscript(
        session, session.audio_duration_seconds, (TranscriptPart(version, offset_seconds=-offset, begin=offset),)
    )


def joined_version(
    chain: Sequence[StoredSession], versions: Sequence[TranscriptVersion], wanted: int
) -> TranscriptVersion | None:
    """The version of the joined recording that a request for it reads; None for a join of the sessions' versions.

    By default it is the newest accepted one of the recording as it is now, unless the tenant has returned to the live
    transcript of the last session.

    Args:
        versions: those of the last session.
        wanted: CURRENT, or a version that exists.

    Raises:
        InvalidFilter: the version that was asked for is not of a joined recording.
    """
    if wanted > LIVE:
        version = next(each for each in versions if each.version == wanted)
        if not version.linked:
            raise InvalidFilter("version", f"version {wanted} is not of the joined recording")
        return version
    if wanted == LIVE or any(each.was_chosen for each in versions):
        return None
    found = [each for each in versions if each.linked and (each.verdict == "accepted" or each.is_current)]
    if not found:
        return None
    key = chain_key(chain)
    return max((each for each in found if each.chain_key == key), key=_number, default=None)


def join(chain: Sequence[StoredSession], versions: Versions, wanted: int) -> ChosenTranscript:
    """The versions of the sessions of a joined recording, joined: of each, what is before the next one begins.

    By default they are the current ones, and a version of the joined recording of the first sessions is used for these.

    Args:
        wanted: CURRENT, or LIVE.

    Raises:
        NotStored: a session has no transcript.
    """
    parts: list[TranscriptPart] = []
    rest = list(session_spans(chain))
    for at in reversed(range(1, len(chain) - 1)):
        version, span = joined_version(chain[: at + 1], versions[chain[at].id], wanted), rest[at]
        if version is not None:
            end = None if span.seconds is None else span.offset_seconds + span.seconds
            parts, rest = [TranscriptPart(version, end=end)], rest[at + 1 :]
            break
    for span in rest:
        version = _alone(versions[span.session.id], wanted)
        if version is None:
            raise NotStored(span.session)
        parts.append(TranscriptPart(version, span.offset_seconds, end=span.seconds))
    return ChosenTranscript(chain[-1], joined_seconds(chain), tuple(parts))


def _alone(versions: Sequence[TranscriptVersion], wanted: int) -> TranscriptVersion | None:
    """The version of a session that is joined with those of others."""
    found = version_of(versions, wanted)
    if found is None or not found.linked:
        return found
    own = [each for each in versions if not each.linked and each.verdict == "accepted"]
    return own[-1] if own else None


def _number(version: TranscriptVersion) -> int:
    return version.version
