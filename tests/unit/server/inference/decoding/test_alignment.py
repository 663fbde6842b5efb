import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from server.inference.decoding.alignment import Alignment, path_starts


def exhaustive(gain: NDArray[np.float64]) -> float:
    """The most that any path from corner to corner gathers."""
    rows, columns = gain.shape
    best = np.full((rows, columns), -np.inf)
    for row, column in itertools.product(range(rows), range(columns)):
        before = [
            best[r, c] for r, c in ((row - 1, column - 1), (row - 1, column), (row, column - 1)) if min(r, c) >= 0
        ]
        best[row, column] = gain[row, column] + (max(before) if before else 0.0)
    return float(best[-1, -1])


def gathered(gain: NDArray[np.float64], starts: NDArray[np.intp]) -> float:
    """The most that a path whose rows begin at `starts` gathers: a row ends where the next begins, or just before."""
    rows, columns = gain.shape
    total = 0.0
    for row in range(rows):
        last = starts[row + 1] if row + 1 < rows else columns - 1
        whole = gain[row, starts[row] : last + 1].sum()
        shared = row + 1 < rows and last > starts[row]
        total += max(whole, whole - gain[row, last]) if shared else whole
    return float(total)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 4), (3, 9), (9, 3), (8, 30)])
def test_the_path_gathers_as_much_as_any(shape: tuple[int, int]) -> None:
    for seed in range(20):
        gain = np.random.default_rng(seed).normal(size=shape)
        starts = path_starts(gain)
        assert starts[0] == 0
        assert (np.diff(starts) >= 0).all()
        assert gathered(gain, starts) == pytest.approx(exhaustive(gain))


def looking(at: list[int], frames: int) -> torch.Tensor:
    """Scores of one head whose tokens look at these frames and the two after each, [1, tokens, frames]."""
    scores = torch.zeros(1, len(at), frames)
    for token, frame in enumerate(at):
        scores[0, token, frame : frame + 4] = 9.0
    return scores


def test_a_token_begins_where_its_heads_begin_to_look() -> None:
    alignment = Alignment([4], [40], torch.device("cpu"))
    alignment.add(looking([0, 10, 20, 30], 40)[None])
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


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_audio_of_a_few_frames_is_aligned(frames: int) -> None:
    alignment = Alignment([5], [frames], torch.device("cpu"))
    alignment.add(torch.randn(1, 2, 5, frames, generator=torch.Generator().manual_seed(0)))
    assert (alignment.starts(0, 1) < frames).all()
