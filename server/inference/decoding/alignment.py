"""The times of tokens, from the attention of the decoder while it decoded them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

_FILTER_WIDTH = 7
"""Width of the median filter in encoder frames, as in the original."""


class Alignment:
    """The attention of the alignment heads for a batch, summed layer by layer so that only one layer is in memory."""

    def __init__(self, tokens: Sequence[int], encoder_frames: Sequence[int], device: torch.device) -> None:
        """For each row its number of tokens, without the padding at its end, and of encoder frames."""
        self._sums = [torch.zeros(size, device=device) for size in zip(tokens, encoder_frames, strict=True)]

    def add(self, scores: torch.Tensor) -> None:
        """Adds a layer's scores before the softmax, [rows, heads, tokens, encoder frames]."""
        for of_row, seen in zip(scores, self._sums, strict=True):
            tokens, encoder_frames = seen.shape
            seen += _sharpened(of_row[:, :tokens, :encoder_frames].float()).sum(dim=0)

    def starts(self, row: int, first: int) -> NDArray[np.intp]:
        """The encoder frame at which each of the row's tokens from `first` on begins; never decreases.

        A token is decoded by the step that reads the one before it, so these are the times of the tokens `first` + 1
        and later, and of the one that would follow the last.
        """
        return path_starts(self._sums[row][first:].double().cpu().numpy())


def _sharpened(scores: torch.Tensor) -> torch.Tensor:
    """Attention, [heads, tokens, encoder frames], without what all tokens attend to, and smoothed over time."""
    attention = scores.softmax(dim=-1)
    deviation, mean = torch.std_mean(attention, dim=-2, keepdim=True, correction=0)
    return _median((attention - mean) / deviation.clamp_min(1e-9))


def _median(x: torch.Tensor) -> torch.Tensor:
    """The median of each encoder frame and its neighbours, [heads, tokens, encoder frames]."""
    half = _FILTER_WIDTH // 2
    if x.shape[-1] <= half:
        return x
    return functional.pad(x, (half, half), mode="reflect").unfold(-1, _FILTER_WIDTH, 1).median(dim=-1).values


def path_starts(gain: NDArray[np.float64]) -> NDArray[np.intp]:
    """The column at which each row's stretch begins on the best path through `gain`, [rows, columns], corner to corner.

    Dynamic time warping: from one row to the next the path advances by one column or none, within a row by any number.
    """
    rows, columns = gain.shape
    costs, offers = np.empty((rows, columns)), np.empty((rows, columns))
    entered = np.full(columns, np.inf)
    entered[0] = 0.0
    for row, gains in enumerate(gain):
        # To be at a column after entering at `k` costs entered[k] - total[k - 1] + total[column]: whatever the column,
        # the best `k` is the one with the least of the first two, so a running minimum computes the whole row.
        total = -np.cumsum(gains)
        offers[row] = entered - (total + gains)
        costs[row] = np.minimum.accumulate(offers[row]) + total
        entered = np.minimum(costs[row], np.concatenate(([np.inf], costs[row, :-1])))
    starts, column = np.empty(rows, np.intp), columns - 1
    for row in range(rows - 1, -1, -1):
        starts[row] = start = int(np.argmin(offers[row, : column + 1]))
        advances = row > 0 and start > 0 and costs[row - 1, start - 1] < costs[row - 1, start]
        column = start - 1 if advances else start
    return starts
