"""Where a session's objects are in the bucket."""

from uuid import UUID

from persistence.session_id import format_session_id


def audio_key(session_id: UUID) -> str:
    """The WAV file."""
    return f"sessions/{format_session_id(session_id)}/audio.wav"


def transcript_key(session_id: UUID) -> str:
    """The JSON document."""
    return f"sessions/{format_session_id(session_id)}/transcript.json"
