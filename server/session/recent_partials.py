"""How the passes that make partials have ended in the last minutes, of all sessions together. Pure."""

from telemetry.recent import Recent

_SUPPRESSED = 1.0
_DONE = 0.0


class RecentPartials:
    """The passes of all sessions of a server."""

    def __init__(self) -> None:
        self.sent = Recent()
        """How long each partial took from its audio to its text, in seconds."""
        self._passes = Recent()

    def note_pass(self, *, has_text: bool) -> None:
        """Notes a pass that has ended: with a text, whether or not it is sent, or because the model had no time."""
        self._passes.add(_DONE if has_text else _SUPPRESSED)

    @property
    def passes(self) -> int:
        """How many passes the window has."""
        return len(self._passes)

    @property
    def suppressed(self) -> float | None:
        """The share of passes for which the model had no time; None if there were none."""
        passes = self._passes.values()
        return sum(passes) / len(passes) if passes else None
