"""What the checks of `verify` find."""

from dataclasses import dataclass
from uuid import UUID

from domain.session_id import format_session_id


@dataclass(frozen=True, slots=True)
class Finding:
    """A row, an object, an upload or a spool that does not agree with the others."""

    kind: str
    session_id: UUID | None
    what: str
    """A sentence for the operator."""
    path: str = ""
    """The key, the directory or the job that it is about."""

    def __str__(self) -> str:
        name = format_session_id(self.session_id) if self.session_id else "-"
        return " ".join(filter(None, (f"{self.kind:24}", name, self.path, self.what)))
