"""What each method needs. A method that is not here is served to nobody."""

from typing import Final

from domain.credentials import Scope

SCOPES: Final[dict[str, Scope]] = {
    "Transcribe": "realtime",
    "CreateToken": "realtime",
    "ListSessions": "sessions:read",
    "GetSession": "sessions:read",
    "GetAudio": "sessions:read",
    "GetTranscript": "sessions:read",
    "ListUtterances": "sessions:read",
    "ExportTranscript": "sessions:read",
    "WatchSessions": "sessions:read",
    "GetEnhancement": "sessions:read",
    "DeleteSession": "sessions:write",
    "EndSession": "sessions:write",
    "EnhanceSession": "sessions:write",
    "CreateKey": "admin",
    "ListKeys": "admin",
    "RevokeKey": "admin",
}
"""By the method's short name; no two services have methods of one name."""

TOKEN_METHOD: Final = "Transcribe"  # noqa: S105 - a method
"""All that a token is good for."""
