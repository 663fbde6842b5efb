"""How large a batch may become."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLimits:
    rows: int
    """Utterances in a batch."""
    frames: int
    """Frames in a batch, padding included: what bounds its memory."""
    waste: float
    """The share of a batch's frames that may be padding. Every row is computed at the longest one's length."""
    partial_rows: int = 1
    """Partials in a batch, with their share of the frames. Few, for a final that comes meanwhile waits for them."""

    def for_partials(self) -> "BatchLimits":
        """The limits of a batch of partials."""
        return BatchLimits(self.partial_rows, self.frames * self.partial_rows // self.rows, self.waste)
