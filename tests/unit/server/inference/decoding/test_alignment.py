import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from server.inference.decoding.alignment import Alignment, path_starts


def exhaustive(gain: NDArray[np.float64]) -> float:
    """The largest gain of any path from corner to corner."""
    rows, columns = gain.shape
    best = np.full((rows, columns), -np.inf)
    for row, column in itertools.product(range(rows), range(columns)):
        before = [
            best[r, c] for r, c in ((row - 1, column - 1), (row - 1, column), (row, column - 1)) if min(r, c) >= 0
        ]
        best[row, column] = gain[row, column] + (max(before) if before else 0.0)
    return float(best[-1, -1])


def gain_of(gain: NDArray[np.float64], starts: NDArray[np.intp]) -> float:
    """The gain of the best path whose rows begin at `starts`: a row ends where the next begins, or just before."""
    rows, columns = gain.shape
    total = 0.0
    for row in range(rows):
        last = starts[row + 1] if row + 1 < rows else columns - 1
        whole = gain[row, starts[row] : last + 1].sum()
        shared = row + 1 < rows and last > starts[row]
        total += max(whole, whole - gain[row, last]) if shared else whole
    return float(total)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 4), (3, 9), (9, 3), (8, 30)])
def test_the_path_has_the_largest_gain(shape: tuple[int, int]) -> None:
    for seed in range(20):
        gain = np.random.default_rng(seed).normal(size=shape)
        starts = path_starts(gain)
        assert starts[0] == 0
        assert (np.diff(starts) >= 0).all()
        assert gain_of(gain, starts) == pytest.approx(exhaustive(gain))


def scores_at(at: list[int], encoder_frames: int) -> torch.Tensor:
    """Scores of one head with high values from each of these encoder frames on, [1, tokens, encoder frames]."""
    scores = torch.zeros(1, len(at), encoder_frames)
    for token, encoder_frame in enumerate(at):
        scores[0, token, encoder_frame : encoder_frame + 4] = 9.0
    return scores


def test_a_token_begins_where_its_attention_begins() -> None:
    alignment = Alignment([4], [40], torch.device("cpu"))
    alignment.add(scores_at([0, 10, 20, 30], 40)[None])
    starts = alignment.starts(0, 0)
    assert starts[0] == 0
    assert np.abs(starts[1:] - [10, 20, 30]).max() <= 6


def test_a_row_does_not_depend_on_its_neighbours_or_its_padding() -> None:
    scores = torch.randn(2, 3, 9, 50, generator=torch.Generator().manual_seed(0))
    together = Alignment([9, 6], [50, 30], torch.device("cpu"))
    together.add(scores)
    alone = Alignment([6], [30], torch.device("cpu"))
    alone.add(scores[1:, :, :6, :30])
    np.testing.assert_array_equal(together.starts(1, 2), alone.starts(0, 2))


@pytest.mark.parametrize("encoder_frames", [1, 3, 4])
def test_audio_of_a_few_encoder_frames_is_aligned(encoder_frames: int) -> None:
    alignment = Alignment([5], [encoder_frames], torch.device("cpu"))
    alignment.add(torch.randn(1, 2, 5, encoder_frames, generator=torch.Generator().manual_seed(0)))
    assert (alignment.starts(0, 1) < encoder_frames).all()
