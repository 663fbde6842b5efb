"""Conversion of language tags (BCP 47) to the codes of the models. Pure."""

import re
from typing import Final

_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*", re.ASCII | re.IGNORECASE)
_ALIASES: Final = {"cmn": "zh", "fil": "tl", "in": "id", "iw": "he", "ji": "yi", "nb": "no"}
"""Codes of browsers that the models do not use: individual languages of a macrolanguage, and withdrawn codes."""


def language_of(tag: str) -> str:
    """The language code of a tag such as `en-US`, in lower case. Text that is not a tag is returned unchanged.

    `auto` is returned in lower case, too. Whether a model supports the code is not checked.
    """
    match = _TAG.fullmatch(tag)
    if match is None:
        return tag.lower() if tag.lower() == "auto" else tag
    code = match[1].lower()
    return _ALIASES.get(code, code)
