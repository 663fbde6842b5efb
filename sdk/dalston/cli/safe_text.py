"""Text that others made, made fit for a terminal. Pure."""

from __future__ import annotations

# What moves the cursor, colours, renames windows or answers in the user's name; and what turns the direction of text
# around, by which a line can be made to read as another.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_IN_LINE = dict.fromkeys(_CONTROLS) | {ord("\t"): " ", ord("\n"): " ", ord("\r"): " "}
_IN_TEXT = {code: None for code in _CONTROLS if chr(code) not in "\t\n"}
# JSON may write any character by its number, and itself does so below 0x20 only.
_IN_JSON = {code: f"\\u{code:04x}" for code in _CONTROLS if code >= 0x7F}


def line(text: object) -> str:
    """Without control characters and without ends of lines."""
    return str(text).translate(_IN_LINE)


def text(whole: str) -> str:
    """Without control characters, but for tabs and ends of lines."""
    return whole.translate(_IN_TEXT)


def json(document: str) -> str:
    """A JSON document with control characters written by their numbers: it says the same."""
    return document.translate(_IN_JSON)
