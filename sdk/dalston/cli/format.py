"""What a transcript is written as."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """`text` and `txt` are the same, under the names that other programs have for it."""

    text = "text"
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    json = "json"

    @property
    def extension(self) -> str:
        """Of a file, and the service's own name of the format."""
        return "txt" if self is Format.text else str(self)
