"""Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13.1). Pure."""

import hashlib
import re
from typing import Final

_TAG: Final = re.compile(r'\s*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*')
_LONGEST: Final = 8192


def entity_tag(content: bytes) -> str:
    """A strong entity tag, with its quotes, derived from `content`."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_unchanged(if_none_match: str, tag: str) -> bool:
    """Whether the client that sent the header already has the file of `tag`.

    The comparison is weak, as the header requires: a cache between them may have made the tag weak.
    """
    if len(if_none_match) > _LONGEST:
        return False
    return if_none_match.strip() == "*" or any(
        match is not None and match[1] == tag for match in map(_TAG.fullmatch, if_none_match.split(","))
    )


def may_take_part(if_range: str, tag: str) -> bool:
    """Whether a Range header applies, given an If-Range header, which is empty if the request has none.

    It applies if the header is the file's strong tag. A date never matches: these files have no date.
    """
    return not if_range or if_range.strip() == tag
