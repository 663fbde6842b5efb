"""The limits of a batch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLimits:
    rows: int
    """Utterances in a batch."""
    encoder_frames: int
    """Encoder frames in a batch, padding included: this bounds its memory."""
    waste: float
    """The share of the encoder frames that may be padding. Every row is computed at the length of the longest one."""
    partial_rows: int = 1
    """Partials in a batch, with their share of the encoder frames. Few, because a final that arrives meanwhile
    waits."""

    def for_partials(self) -> "BatchLimits":
        """The limits of a batch of partials."""
        return BatchLimits(self.partial_rows, self.encoder_frames * self.partial_rows // self.rows, self.waste)
