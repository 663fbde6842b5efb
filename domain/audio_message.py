"""The rule for the audio of one message: whole sample frames, at most 64 KiB. Pure."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

M = TypeVar("M")

MAX_AUDIO_MESSAGE_BYTES: Final = 65_536
"""The limit that the contract states for `TranscribeRequest.audio`. It is a multiple of every frame size."""


class AudioFault(Enum):
    """Why audio of a message is refused."""

    TOO_BIG = auto()
    """It is longer than MAX_AUDIO_MESSAGE_BYTES."""
    PARTIAL_FRAME = auto()
    """It ends inside of a sample frame."""


def check_audio(size: int, frame_bytes: int) -> AudioFault | None:
    """The fault of `size` bytes of audio whose sample frames have `frame_bytes`; None if there is none."""
    if size > MAX_AUDIO_MESSAGE_BYTES:
        return AudioFault.TOO_BIG
    return AudioFault.PARTIAL_FRAME if size % frame_bytes else None


@dataclass(frozen=True, slots=True)
class Checked(Generic[M]):
    """A message whose audio, if it has any, was checked where it was received: later stages use the result."""

    message: M
    fault: AudioFault | None = None
