"""The programs of the guides, as they stand there."""

import json
import re
import textwrap
from typing import Any

from stack.settings import ROOT

_CHOOSE, _CONNECTED = 1, 2
"""Which programs of docs/websocket.md are the two parts of "Resuming"."""


def program(guide: str, language: str, of: int = 0) -> str:
    """The first program in a language that a guide has, or the one after `of` others."""
    text = (ROOT / "docs" / guide).read_text()
    return str(re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[of])


async def resuming_parameters(**names: Any) -> dict[str, Any]:
    """What a client written from docs/websocket.md asks for to resume: runs the guide's lines with these names."""
    left = await _run(program("websocket.md", "python", of=_CHOOSE), names | {"parameters": {}})
    parameters: dict[str, Any] = left["parameters"]
    return parameters


async def resumed(**names: Any) -> dict[str, Any]:
    """The variables that the guide's lines leave behind once the client has connected again."""
    return await _run(program("websocket.md", "python", of=_CONNECTED), names | {"json": json})


async def _run(lines: str, names: dict[str, Any]) -> dict[str, Any]:
    source = f"async def run({', '.join(names)}):\n{textwrap.indent(lines, '    ')}    return locals()"
    space: dict[str, Any] = {}
    exec(source, space)  # noqa: S102 - our own guide
    left: dict[str, Any] = await space["run"](**names)
    return left
