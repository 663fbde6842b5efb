"""Client of the Dalston real-time transcription service.

    from dalston import Client, FinalResult

    with Client() as client, client.transcribe("speech.wav") as stream:
        for event in stream:
            if isinstance(event, FinalResult):
                print(event.text)

`AsyncClient` is the same client for asyncio. The names exported here are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalston.async_audio import AsyncAudio
    from dalston.async_client import AsyncClient
    from dalston.client import Audio, Client
    from dalston.errors import (
        AudioOverflow,
        AuthenticationError,
        Busy,
        ConnectionLost,
        DalstonError,
        DeadlineExceeded,
        FileTooBig,
        InvalidRequest,
        JobActive,
        JobCanceled,
        JobFailed,
        JobRunning,
        NoCapacity,
        NotFound,
        PermissionDenied,
        RateLimited,
        ServerError,
        SessionActive,
        SessionEnded,
        SessionResumed,
        SessionTimeout,
        StorageQuotaExceeded,
        TooManyJobs,
        TooManyKeys,
        TooManySessions,
        Unavailable,
        Unsupported,
        UnsupportedMedia,
    )
    from dalston.events import (
        Acknowledged,
        Ended,
        Event,
        FinalResult,
        Flushed,
        PartialResult,
        Reconnecting,
        Resumed,
        SessionBegan,
        SpeechEnded,
        SpeechStarted,
        Warned,
        Word,
    )
    from dalston.file_transcription import FileTranscription
    from dalston.files.async_file_transcription import AsyncFileTranscription
    from dalston.live.async_transcription import AsyncTranscription
    from dalston.microphone import Microphone
    from dalston.options import AudioSource, FileOptions, FileSource, TranscribeOptions
    from dalston.records import (
        ChangeType,
        ExportFormat,
        FileProgress,
        Job,
        JobPage,
        JobStatus,
        Key,
        Login,
        NewKey,
        Scope,
        Session,
        SessionChange,
        SessionPage,
        SessionStatus,
        Token,
        Transcript,
        TranscriptVersion,
        Utterance,
    )
    from dalston.service_status import (
        Degradation,
        Latency,
        Process,
        ServerFigures,
        ServiceStatus,
        StorageBacklog,
        Totals,
        WorkerFigures,
    )
    from dalston.transcription import Transcription

# The modules that define the exported names, cheapest import first: most of the names need no gRPC.
_MODULES = (
    "errors",
    "events",
    "records",
    "service_status",
    "options",
    "microphone",
    "async_client",
    "async_audio",
    "live.async_transcription",
    "files.async_file_transcription",
    "client",
    "transcription",
    "file_transcription",
)

__all__ = [
    "Acknowledged",
    "AsyncAudio",
    "AsyncClient",
    "AsyncFileTranscription",
    "AsyncTranscription",
    "Audio",
    "AudioOverflow",
    "AudioSource",
    "AuthenticationError",
    "Busy",
    "ChangeType",
    "Client",
    "ConnectionLost",
    "DalstonError",
    "DeadlineExceeded",
    "Degradation",
    "Ended",
    "Event",
    "ExportFormat",
    "FileOptions",
    "FileProgress",
    "FileSource",
    "FileTooBig",
    "FileTranscription",
    "FinalResult",
    "Flushed",
    "InvalidRequest",
    "Job",
    "JobActive",
    "JobCanceled",
    "JobFailed",
    "JobPage",
    "JobRunning",
    "JobStatus",
    "Key",
    "Latency",
    "Login",
    "Microphone",
    "NewKey",
    "NoCapacity",
    "NotFound",
    "PartialResult",
    "PermissionDenied",
    "Process",
    "RateLimited",
    "Reconnecting",
    "Resumed",
    "Scope",
    "ServerError",
    "ServerFigures",
    "ServiceStatus",
    "Session",
    "SessionActive",
    "SessionBegan",
    "SessionChange",
    "SessionEnded",
    "SessionPage",
    "SessionResumed",
    "SessionStatus",
    "SessionTimeout",
    "SpeechEnded",
    "SpeechStarted",
    "StorageBacklog",
    "StorageQuotaExceeded",
    "Token",
    "TooManyJobs",
    "TooManyKeys",
    "TooManySessions",
    "Totals",
    "TranscribeOptions",
    "Transcript",
    "TranscriptVersion",
    "Transcription",
    "Unavailable",
    "Unsupported",
    "UnsupportedMedia",
    "Utterance",
    "Warned",
    "Word",
    "WorkerFigures",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for submodule in _MODULES:
            module = import_module(f"{__name__}.{submodule}")
            if hasattr(module, name):
                value: object = getattr(module, name)
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
