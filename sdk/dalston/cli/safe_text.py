"""Removes control characters from untrusted text for terminals. Pure."""

from __future__ import annotations

# Control characters can move the cursor, change colours and titles, or send input in the user's name; characters that
# change the direction of text can disguise a line as another.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_IN_LINE = dict.fromkeys(_CONTROLS) | {ord("\t"): " ", ord("\n"): " ", ord("\r"): " "}
_IN_TEXT = {code: None for code in _CONTROLS if chr(code) not in "\t\n"}
# JSON can escape any character; json.dumps escapes only those below 0x20.
_IN_JSON = {code: f"\\u{code:04x}" for code in _CONTROLS if code >= 0x7F}


def line(text: object) -> str:
    """The text without control characters and line ends."""
    return str(text).translate(_IN_LINE)


def text(whole: str) -> str:
    """The text without control characters other than tabs and line ends."""
    return whole.translate(_IN_TEXT)


def json(document: str) -> str:
    """An equivalent JSON document in which control characters are escaped."""
    return document.translate(_IN_JSON)
