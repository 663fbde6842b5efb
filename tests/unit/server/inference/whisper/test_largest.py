"""The largest values of a row."""

import pytest
import torch

from server.inference.whisper.largest import largest


@pytest.mark.parametrize(("rows", "size", "count"), [(1, 51865, 5), (20, 51865, 32), (3, 100, 7), (2, 64 * 9, 9)])
def test_the_indices_are_those_of_torch(rows: int, size: int, count: int) -> None:
    values = torch.randn(rows, size, generator=torch.Generator().manual_seed(0))
    assert largest(values, count).tolist() == values.topk(count, dim=-1).indices.tolist()


def test_excluded_values_are_chosen_last() -> None:
    values = torch.full((1, 5000), -torch.inf)
    values[0, 4999], values[0, 70] = 1.0, 0.5
    assert largest(values, 3)[0, :2].tolist() == [4999, 70]
