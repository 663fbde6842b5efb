"""The scope that each method requires; None where any key is enough. A method that is not listed is refused to every
caller."""

from typing import Final

from domain.credentials import Scope

SCOPES: Final[dict[str, Scope | None]] = {
    "Transcribe": "realtime",
    "TranscribeFile": "realtime",
    "ListModels": "realtime",
    "CreateToken": "realtime",
    "ListSessions": "sessions:read",
    "GetSession": "sessions:read",
    "GetAudio": "sessions:read",
    "GetWaveform": "sessions:read",
    "GetTranscript": "sessions:read",
    "ListUtterances": "sessions:read",
    "ExportTranscript": "sessions:read",
    "WatchUtterances": "sessions:read",
    "WatchSessions": "sessions:read",
    "GetEnhancement": "sessions:read",
    "ListTranscripts": "sessions:read",
    "ListJobs": "sessions:read",
    "GetJob": "sessions:read",
    "WatchJob": "sessions:read",
    "DeleteSession": "sessions:write",
    "EndSession": "sessions:write",
    "EnhanceSession": "sessions:write",
    "SetCurrentTranscript": "sessions:write",
    "DeleteTranscript": "sessions:write",
    "CancelJob": "sessions:write",
    "RetryJob": "sessions:write",
    "CreateKey": "admin",
    "ListKeys": "admin",
    "RevokeKey": "admin",
    "GetStatus": "admin",
    "ListLogins": "admin",
    "RevokeLogin": "admin",
    "CreateLogin": None,
    "GetLogin": None,
    "DeleteLogin": None,
}
"""By the method's short name: no two services have methods of the same name."""

TOKEN_METHOD: Final = "Transcribe"  # noqa: S105 - a method
"""The only method that a token allows."""
