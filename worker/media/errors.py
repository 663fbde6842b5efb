"""Why a media file was not decoded. The messages are for the user that sent the file, unless the error is retryable."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a file cannot be decoded."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    """The file is not in a format of `server.audio.media`."""
    UNSUPPORTED_CODEC = "unsupported_codec"
    """The format is supported, and the codec of its audio is not."""
    NO_AUDIO = "no_audio"
    """The file has no audio, or its audio has no sample."""
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"
    """Nothing in the file can be decoded: it is damaged, or cut off before its first sample."""
    TOO_COSTLY = "too_costly"
    """Decoding it needs more CPU time or memory than its length justifies."""
    CRASHED = "crashed"
    """The decoder crashed on it."""


class MediaError(Exception):
    """A file was not decoded."""

    is_retryable = False
    """Whether the cause is with this service, so that a later attempt may succeed."""


class UndecodableMedia(MediaError):
    """The file cannot be decoded, now or later."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MediaTooLong(MediaError):
    """The file has more audio than the limit."""

    def __init__(self, max_seconds: float) -> None:
        super().__init__(f"the audio of the file is longer than the limit of {_duration(max_seconds)}")
        self.max_seconds = max_seconds


class MediaTooLarge(MediaError):
    """The file has more bytes than the limit."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the file is larger than the limit of {max_bytes} bytes")
        self.max_bytes = max_bytes


class DecodingFailed(MediaError):
    """The file was not decoded for a reason that has nothing to do with the file."""

    is_retryable = True


class NoDiskSpace(DecodingFailed):
    """The disk has no space for the decoded audio, or the temporary files of this process have reached their limit."""


class DecodingTimeout(DecodingFailed):
    """Decoding took longer than the deadline without exceeding its CPU time: the machine was busy."""


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:g} hours" if hours >= 1 else f"{seconds:g} seconds"
