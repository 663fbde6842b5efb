"""Language tags (BCP 47) as the models' codes. Pure."""

import re
from typing import Final

_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*", re.ASCII | re.IGNORECASE)
_ALIASES: Final = {"cmn": "zh", "fil": "tl", "in": "id", "iw": "he", "ji": "yi", "nb": "no"}
"""Languages that browsers name otherwise than the models: macrolanguages, and codes that ISO 639 has withdrawn."""


def language_of(tag: str) -> str:
    """The language code of a tag such as `en-US`, in lower case; what is no tag, as it is.

    `auto` is in lower case, too. Which codes a model knows is not judged here.
    """
    match = _TAG.fullmatch(tag)
    if match is None:
        return tag.lower() if tag.lower() == "auto" else tag
    code = match[1].lower()
    return _ALIASES.get(code, code)
