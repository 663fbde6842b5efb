"""The web pages that may use the service from a browser, by their origin."""

import re
from typing import Annotated

from pydantic import AfterValidator

_FORM = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)


def split_origins(text: str) -> tuple[str, ...]:
    """The origins in `https://a.example, https://b.example:8443`."""
    return tuple(origin for part in text.split(",") if (origin := part.strip()))


def _checked(text: str) -> str:
    for origin in split_origins(text):
        if _FORM.fullmatch(origin) is None:
            raise ValueError("must be origins such as https://app.example.com, in lower case, separated by commas")
    return text


Origins = Annotated[str, AfterValidator(_checked)]
"""A setting that `split_origins` reads."""
