"""What the end of a child means: a decoded file, or an error.

The report of the child is foreign input: the process that wrote it has parsed the file.
"""

import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server.audio.decoder import MODEL_RATE
from server.audio.media import MEDIA_TYPES
from telemetry.logs import get_logger
from worker.media.errors import DecodingFailed, MediaError, MediaTooLong, NoDiskSpace, Reason, UndecodableMedia
from worker.media.process import Exit
from worker.media.sandbox import ISOLATION

SAMPLE_BYTES: Final = 2
"""Of a sample of the output: signed, 16 bits, little-endian."""
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a full disk, and of a file that has reached its limit."""
_CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
_MAX_MESSAGE: Final = 300

_log = get_logger(__name__)
_warned: Final[list[bool]] = []


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded file. `sample_rate` and `channels` are those of the file, and not of the output."""

    path: Path
    """Mono, signed, 16 bits, little-endian, 16 kHz, without a header."""
    seconds: float
    byte_count: int
    format: str
    """A key of `server.audio.media.MEDIA_TYPES`."""
    media_type: str
    codec: str
    """libav's name of the codec, such as `opus`."""
    sample_rate: int
    channels: int
    is_truncated: bool
    """Whether the file ends before the end that it states; what it has is decoded."""
    damaged_packets: int
    """How many pieces of the file could not be decoded. Where timestamps show their length, silence replaces them."""


def outcome_of(result: Exit, path: Path, size: int, max_seconds: float) -> Decoded:
    """The decoded file at `path`, of `size` bytes. Raises the errors of `worker.media.decode.decode`."""
    report = result.report
    if result.code or report is None:
        raise _crash(result)
    _check_isolation(report.get("isolation"))
    if report.get("is_too_long") is True or size > int(max_seconds * MODEL_RATE) * SAMPLE_BYTES:
        raise MediaTooLong(max_seconds)
    try:
        outcome = _parsed(report, path, size)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise UndecodableMedia(Reason.CRASHED, "the decoder failed on the file") from error
    if isinstance(outcome, MediaError):
        raise outcome
    return outcome


def _parsed(report: dict[str, Any], path: Path, size: int) -> Decoded | MediaError:
    """Raises TypeError, ValueError, LookupError or OverflowError if the report is not one."""
    if (number := report.get("errno")) is not None:
        return disk_error(OSError(_number(number), os.strerror(number)))
    if (refused := report.get("refused")) is not None:
        return UndecodableMedia(Reason(refused[0]), _text(refused[1]))
    facts = report["facts"]
    whole, rest = divmod(size, SAMPLE_BYTES)
    if not whole or rest:
        raise ValueError(f"{size} bytes of samples")
    return Decoded(
        path=path,
        seconds=whole / MODEL_RATE,
        byte_count=size,
        format=facts["format"],
        media_type=MEDIA_TYPES[facts["format"]],
        codec=_text(facts["codec"]),
        sample_rate=_number(facts["sample_rate"]),
        channels=_number(facts["channels"]),
        is_truncated=facts["is_truncated"] is True,
        damaged_packets=_number(facts["damaged_packets"]),
    )


def disk_error(error: OSError) -> DecodingFailed:
    """The error for output that cannot be written."""
    if error.errno in NO_SPACE:
        return NoDiskSpace("there is not enough disk space for temporary files")
    return DecodingFailed(f"the decoded audio cannot be written: {error.strerror}")


def _crash(result: Exit) -> UndecodableMedia | DecodingFailed:
    """The error for a child that ended without a report."""
    _log.warning("media decoder ended without a report", code=result.code, stderr=result.stderr[-1000:])
    if result.code == -signal.SIGXCPU:
        return UndecodableMedia(Reason.TOO_COSTLY, "decoding the file takes too much CPU time for its length")
    if -result.code in _CRASHES:
        return UndecodableMedia(Reason.CRASHED, "the decoder crashed on the file")
    return DecodingFailed(f"the decoder ended with {result.code}")


def _check_isolation(applied: Any) -> None:
    """Logs once what the kernel, or the container that this process runs in, does not allow."""
    names = applied if isinstance(applied, list) else []
    missing = sorted(name for name in ISOLATION if name not in names)
    if missing and not _warned:
        _warned.append(True)
        _log.warning("media files are decoded with less isolation", missing=missing)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError
    return value[:_MAX_MESSAGE]


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise TypeError
    return value
