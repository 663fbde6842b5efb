"""Versions of transcripts as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalston.cli.session_table import local_time

if TYPE_CHECKING:
    from dalston.records import TranscriptVersion

COLUMNS = ("VERSION", "CURRENT", "KIND", "MODEL", "LANGUAGE", "CREATED", "WORDS", "VERDICT", "REASON")


def row(version: TranscriptVersion) -> tuple[str, ...]:
    """The cells under `COLUMNS`."""
    return (
        str(version.version),
        "yes" if version.is_current else "-",
        f"{version.kind}, linked" if version.linked else version.kind,
        version.model,
        version.language,
        local_time(version.created_at),
        str(version.word_count),
        version.verdict,
        version.verdict_reason or "",
    )
