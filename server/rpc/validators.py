"""Entity tags and the conditions that requests put on them (RFC 9110, sections 8.8.3 and 13.1). Pure."""

import hashlib
import re
from typing import Final

_TAG: Final = re.compile(r'\s*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*')
_LONGEST: Final = 8192


def entity_tag(content: bytes) -> str:
    """A strong tag, with its quotes, of what `content` identifies."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_unchanged(if_none_match: str, tag: str) -> bool:
    """Whether whoever sent the header has the file already that `tag` is of.

    Compared weakly, as the header wants it: a cache on the way may have made a tag weak.
    """
    if len(if_none_match) > _LONGEST:
        return False
    return if_none_match.strip() == "*" or any(
        match is not None and match[1] == tag for match in map(_TAG.fullmatch, if_none_match.split(","))
    )


def may_take_part(if_range: str, tag: str) -> bool:
    """Whether a Range header counts, given an If-Range header, which is empty where there is none.

    A tag counts if it is the file's own and strong. A date never does: files here have none.
    """
    return not if_range or if_range.strip() == tag
