"""The formats of transcripts."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """`text` and `txt` are the same format, under the names that other programs use."""

    text = "text"
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    json = "json"

    @property
    def extension(self) -> str:
        """The file extension, which is also the service's name of the format."""
        return "txt" if self is Format.text else str(self)
