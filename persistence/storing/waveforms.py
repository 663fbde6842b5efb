"""The waveforms of stored audio, each beside its audio."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from persistence.errors import ObjectNotFound
from persistence.s3.byte_map import ByteMap, ObjectRange
from persistence.s3.keys import waveform_key
from persistence.s3.linked import recorded_audio
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession

CONTENT_TYPE: Final = "application/octet-stream"
_OF_AUDIO: Final = "audio"
"""Where an object states which audio it was made of."""


@dataclass(frozen=True, slots=True)
class RecordedAudio:
    """The audio of a session, or of linked sessions, without the header of its file."""

    audio: ByteMap
    """Its bytes, for `Archive.read`."""
    identity: bytes
    """Differs whenever the audio may differ: a SHA-256."""


class WaveformStore:
    """Reads and writes waveforms. All methods raise StorageUnavailable while S3 is unavailable.

    A waveform names the audio that it was made of. One of other audio counts as none: audio may be added to a session
    after its end, when a server that was lost comes back.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def recorded(self, chain: Sequence[StoredSession]) -> RecordedAudio:
        """The audio of a live session, or of linked ones, oldest first, as it is now.

        Raises:
            AudioNotStored, SessionActive: the audio of a session, which the message names, cannot be read.
        """
        for session in chain:
            session.require_audio()
        audio = recorded_audio(chain)
        digest = hashlib.sha256(audio.identity)
        for key in sorted({piece.key for piece in audio.pieces if isinstance(piece, ObjectRange)}):
            digest.update(f"\n{await self._objects.size_and_version(key)}".encode())
        return RecordedAudio(audio, digest.digest())

    async def read(self, session_id: UUID, identity: bytes | None) -> bytes | None:
        """The stored waveform of a session.

        Args:
            session_id: the session.
            identity: the audio that it has to be of; None accepts any.

        Returns:
            None: there is none, or it is of other audio.
        """
        try:
            data, metadata = await self._objects.read_described(waveform_key(session_id))
        except ObjectNotFound:
            return None
        return data if identity is None or metadata.get(_OF_AUDIO) == identity.hex() else None

    async def write(self, session_id: UUID, identity: bytes, data: bytes) -> None:
        """Stores the waveform of a session, in place of an earlier one."""
        await self._objects.put(waveform_key(session_id), data, CONTENT_TYPE, {_OF_AUDIO: identity.hex()})

    async def is_stale(self, session: StoredSession) -> bool:
        """Whether a live session, whose audio is stored, has a waveform of other audio.

        Raises:
            ObjectNotFound: its audio is missing.
        """
        try:
            metadata = await self._objects.metadata(waveform_key(session.id))
        except ObjectNotFound:
            return False
        return metadata.get(_OF_AUDIO) != (await self.recorded([session])).identity.hex()
