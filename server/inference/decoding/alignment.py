"""When each token was said, from what the decoder looked at while it wrote it."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

_FILTER_WIDTH = 7
"""Frames of the median filter, as in the original."""


class Alignment:
    """The alignment heads' attention of a batch, gathered layer by layer so that one layer at a time is held."""

    def __init__(self, tokens: Sequence[int], frames: Sequence[int], device: torch.device) -> None:
        """For each row, how many tokens it has, padding at its end not counted, and how many frames of audio."""
        self._sums = [torch.zeros(size, device=device) for size in zip(tokens, frames, strict=True)]

    def add(self, scores: torch.Tensor) -> None:
        """Takes a layer's scores before the softmax, [rows, heads, tokens, frames]."""
        for of_row, seen in zip(scores, self._sums, strict=True):
            tokens, frames = seen.shape
            seen += _sharpened(of_row[:, :tokens, :frames].float()).sum(dim=0)

    def starts(self, row: int, first: int) -> NDArray[np.intp]:
        """The frame that each of the row's tokens from `first` on begins at; never decreases.

        A token is written by the step that reads the one before it, so these are the times of the tokens `first` + 1
        and later, and of the one that would follow the last.
        """
        return path_starts(self._sums[row][first:].double().cpu().numpy())


def _sharpened(scores: torch.Tensor) -> torch.Tensor:
    """Attention, [heads, tokens, frames], with what every token looks at taken out, and smoothed over time."""
    attention = scores.softmax(dim=-1)
    deviation, mean = torch.std_mean(attention, dim=-2, keepdim=True, correction=0)
    return _median((attention - mean) / deviation.clamp_min(1e-9))


def _median(x: torch.Tensor) -> torch.Tensor:
    """The median of each frame and its neighbours, [heads, tokens, frames]."""
    reach = _FILTER_WIDTH // 2
    if x.shape[-1] <= reach:
        return x
    return functional.pad(x, (reach, reach), mode="reflect").unfold(-1, _FILTER_WIDTH, 1).median(dim=-1).values


def path_starts(gain: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where each row's stretch begins on the best path through `gain`, [rows, columns], from corner to corner.

    Dynamic time warping: from one row to the next the path moves on by one column or none, within a row by any number.
    """
    rows, columns = gain.shape
    costs, offers = np.empty((rows, columns)), np.empty((rows, columns))
    entered = np.full(columns, np.inf)
    entered[0] = 0.0
    for row, gains in enumerate(gain):
        # To be at a column after entering at `k` costs entered[k] - total[k - 1] + total[column]: whatever the column,
        # the best `k` is the one with the least of the first two, so a running minimum does the whole row.
        total = -np.cumsum(gains)
        offers[row] = entered - (total + gains)
        costs[row] = np.minimum.accumulate(offers[row]) + total
        entered = np.minimum(costs[row], np.concatenate(([np.inf], costs[row, :-1])))
    starts, column = np.empty(rows, np.intp), columns - 1
    for row in range(rows - 1, -1, -1):
        starts[row] = start = int(np.argmin(offers[row, : column + 1]))
        moves_on = row > 0 and start > 0 and costs[row - 1, start - 1] < costs[row - 1, start]
        column = start - 1 if moves_on else start
    return starts
