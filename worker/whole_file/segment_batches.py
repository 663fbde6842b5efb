"""Which segments of a passage the model transcribes together. Pure: the same passage has the same batches."""

from collections.abc import Sequence
from typing import Final

from server.inference.decoding.encoder_window import window

_ROWS: Final = 4
"""The most segments in a batch: four take a quarter less CPU time than one at a time, and eight take longer than four,
because their audio does not fit into the cache of the CPU."""
_WASTE: Final = 0.2
"""The share of a batch that may be padding: every row is computed at the length of the longest one."""


def batches(seconds: Sequence[float], full_window: int) -> list[list[int]]:
    """The indices of the segments in each batch, by their length.

    Args:
        seconds: length of each segment.
        full_window: encoder frames of the longest possible segment.
    """
    found: list[list[int]] = []
    longest = used = 0
    for index in sorted(range(len(seconds)), key=lambda index: (-seconds[index], index)):
        frames = window(seconds[index], full_window)
        total = longest * (len(found[-1]) + 1) if found else 0
        fits = found and len(found[-1]) < _ROWS and total <= full_window and total - used - frames <= _WASTE * total
        if fits:
            found[-1].append(index)
            used += frames
        else:
            found.append([index])
            longest = used = frames
    return found
