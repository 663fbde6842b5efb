"""Names of models: vendor names that clients hard-code are aliases of models of the server."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

ALIASES: Final[Mapping[str, str]] = {
    "whisper-1": "accurate",
    "gpt-transcribe": "accurate",
    "gpt-4o-transcribe": "accurate",
    "gpt-4o-mini-transcribe": "accurate",
    "gpt-live-transcribe": "fast",
    "gpt-realtime-whisper": "fast",
}
"""The names that are listed, and the model that each is."""
_PATTERNS: Final = (
    ("gpt-4o-transcribe*", "accurate"),
    ("gpt-4o-mini-transcribe*", "accurate"),
    ("nova*", "fast"),
    ("base", "fast"),
    ("enhanced", "fast"),
    ("scribe_*", "fast"),
)
"""Further names that are taken: dated versions, and those of other vendors."""


class Models:
    """The aliases of one process."""

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        """`more` adds aliases, and replaces those of the same names."""
        self._aliases = {**ALIASES, **(more or {})}

    def resolve(self, name: str) -> str:
        """The model of the server that a name is; a name that is no alias is returned as it is."""
        if name in self._aliases:
            return self._aliases[name]
        return next((model for pattern, model in _PATTERNS if fnmatchcase(name, pattern)), name)

    def listing(self, served: Iterable[str]) -> list[dict[str, Any]]:
        """The entries of `GET /v1/models`: the server's own models first, then the aliases of them."""
        own = list(served)
        aliases = [alias for alias, model in self._aliases.items() if model in own and alias not in own]
        return [entry(name) for name in (*own, *aliases)]

    def find(self, name: str, served: Iterable[str]) -> dict[str, Any] | None:
        """The entry of a name; None if no model has it."""
        return entry(name) if self.resolve(name) in list(served) or name in list(served) else None


def entry(name: str) -> dict[str, Any]:
    """A model as clients of OpenAI know it. The server does not know when a model was made."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "dalston"}
