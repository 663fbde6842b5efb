"""The audio of a session, or of linked sessions, as workers read it: in ranges, never as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from persistence.errors import AudioDamaged, ObjectNotFound, ObjectTooShort
from persistence.s3.byte_map import ByteMap, ObjectRange, Piece
from persistence.s3.linked import chain_key, recorded_audio
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from persistence.wav import WavFormat, data_bytes


@dataclass(frozen=True, slots=True)
class RecordingFile:
    """A recording whose objects were there, and long enough, when it was opened."""

    wav: WavFormat
    audio: ByteMap
    """The audio without the header of the file."""
    chain: tuple[UUID, ...]
    """The sessions, oldest first."""
    chain_key: bytes
    """Identifies the recording."""
    _objects: ObjectStore

    @property
    def frames(self) -> int:
        """Its length in sample frames."""
        return self.audio.size // self.wav.frame_bytes

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.wav.sample_rate

    async def read(self, first: int, last: int) -> bytes:
        """The audio from sample frame `first` to the one before `last`, in the encoding of the recording.

        Raises:
            AudioDamaged: the audio ends before.
            StorageUnavailable: S3 is unavailable.
        """
        begin, end = first * self.wav.frame_bytes, last * self.wav.frame_bytes
        found: list[bytes] = []
        position = begin
        for piece in self.audio.between(begin, end).pieces:
            try:
                found.append(await self._piece(piece))
            except (ObjectNotFound, ObjectTooShort) as error:
                there = 0
                if isinstance(piece, ObjectRange):
                    there = await _end_of(self._objects, piece)
                raise AudioDamaged(self.wav.seconds(position + there), self.seconds) from error
            position += piece.size
        return b"".join(found)

    async def _piece(self, piece: Piece) -> bytes:
        if isinstance(piece, ObjectRange):
            return await self._objects.read_range(piece.key, piece.first, piece.first + piece.size)
        return b"".join(piece.chunks())


async def open_recording(objects: ObjectStore, chain: Sequence[StoredSession]) -> RecordingFile:
    """Opens the recording of a session, or of linked sessions, oldest first.

    Raises:
        AudioDamaged: an object is missing, shorter than its row states, or no recording.
        AudioNotStored, SessionActive: the audio of a session, which the message names, cannot be read.
        StorageUnavailable: S3 is unavailable.
    """
    for session in chain:
        session.require_audio()
    wav = chain[-1].wav
    audio = recorded_audio(chain)
    file = RecordingFile(wav, audio, tuple(session.id for session in chain), chain_key(chain), objects)
    position = 0
    for piece in audio.pieces:
        if isinstance(piece, ObjectRange):
            await _check(objects, wav, piece, position, file.seconds)
        position += piece.size
    return file


async def _check(objects: ObjectStore, wav: WavFormat, piece: ObjectRange, position: int, seconds: float) -> None:
    try:
        header = await objects.read_start(piece.key, wav.header_bytes)
        stated = data_bytes(header)
    except (ObjectNotFound, ObjectTooShort, ValueError) as error:
        raise AudioDamaged(wav.seconds(position), seconds) from error
    wanted = piece.first + piece.size - wav.header_bytes
    # An object that was added to while its row was read is longer.
    there = min(stated, await objects.size(piece.key) - wav.header_bytes)
    if there < wanted:
        raise AudioDamaged(wav.seconds(position + max(0, there)), seconds)


async def _end_of(objects: ObjectStore, piece: ObjectRange) -> int:
    """How many bytes of the piece the object has."""
    try:
        return min(piece.size, max(0, await objects.size(piece.key) - piece.first))
    except ObjectNotFound:
        return 0
