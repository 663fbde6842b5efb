import pytest
import torch
from torch.nn import functional

from server.inference.whisper.decoder import _attend


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("utterances", [1, 3])
def test_attention_to_bfloat16_audio_is_that_of_torch_within_its_precision(queries: int, utterances: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(utterances, 8, rows, 64, generator=generator) for rows in (queries, 350, 350))
    exact = functional.scaled_dot_product_attention(query, keys, values)
    found = _attend(query, keys.bfloat16(), values.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0.02)
