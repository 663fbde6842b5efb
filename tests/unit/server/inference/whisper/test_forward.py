"""Encoder and decoder against transformers' on the same random weights."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from server.inference.whisper.checkpoint import Checkpoint, read_checkpoint
from server.inference.whisper.decoder import Decoder
from server.inference.whisper.encoder import Encoder
from server.inference.whisper.layers import DenseLinear, Int8Linear
from server.inference.whisper.precision import Precision

CPU = torch.device("cpu")
EXACT = Precision(encoder=torch.float32, decoder=torch.float32, quantised_decoder=False)
FULL = 100
"""The small model's full window, in encoder frames."""


@pytest.fixture(scope="module")
def checkpoint(small_whisper: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory: Path = small_whisper.save(tmp_path_factory.mktemp("small"))
    return read_checkpoint(directory)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def mel(rows: int, encoder_frames: int) -> torch.Tensor:
    return torch.randn(rows, 80, 2 * encoder_frames, generator=torch.Generator().manual_seed(1))


def prompts(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50000, (rows, length), generator=torch.Generator().manual_seed(2))


def test_the_full_window_is_encoded_as_transformers_does(small_whisper: Any, checkpoint: Checkpoint) -> None:
    features = mel(2, FULL)
    expected = small_whisper.model.model.encoder(features).last_hidden_state
    torch.testing.assert_close(Encoder(checkpoint, CPU, torch.float32)(features), expected, rtol=1e-4, atol=1e-4)


def test_a_short_window_is_encoded_like_a_model_of_its_length(small_whisper: Any, checkpoint: Checkpoint) -> None:
    encoder_frames = 36
    reference = copy.deepcopy(small_whisper.model.model.encoder)
    reference.config.max_source_positions = encoder_frames
    reference.embed_positions.weight.data = reference.embed_positions.weight.data[:encoder_frames]
    reference.embed_positions.num_embeddings = encoder_frames
    features = mel(1, encoder_frames)
    expected = reference(features).last_hidden_state
    torch.testing.assert_close(Encoder(checkpoint, CPU, torch.float32)(features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [[8], [3, 1, 1, 1, 1, 1], [1, 4, 3]])
def test_logits_equal_transformers_however_the_tokens_are_fed(
    steps: list[int], small_whisper: Any, checkpoint: Checkpoint
) -> None:
    decoder = Decoder(checkpoint, CPU, EXACT)
    audio = Encoder(checkpoint, CPU, torch.float32)(mel(2, FULL))
    tokens = prompts(2, 8)
    expected = small_whisper.model(encoder_outputs=(audio,), decoder_input_ids=tokens).logits
    state = decoder.start(audio, 8)
    hidden = torch.cat([decoder.step(state, part) for part in tokens.split(steps, dim=1)], dim=1)
    for index in range(8):
        torch.testing.assert_close(decoder.logits(hidden[:, index]), expected[:, index], rtol=1e-3, atol=1e-3)


def test_prompts_of_unequal_length_equal_each_alone(checkpoint: Checkpoint) -> None:
    decoder = Decoder(checkpoint, CPU, EXACT)
    audio = Encoder(checkpoint, CPU, torch.float32)(mel(3, FULL))
    rows = [prompts(1, 9)[0, :length] for length in (9, 4, 1)]
    following = prompts(3, 2)
    padding = [9 - len(row) for row in rows]
    padded = torch.stack([torch.nn.functional.pad(row, (count, 0)) for row, count in zip(rows, padding, strict=True)])

    state = decoder.start(audio, 11, padding)
    together = [
        decoder.step(state, padded)[:, -1],
        *(decoder.step(state, part)[:, -1] for part in following.split(1, 1)),
    ]
    for index, row in enumerate(rows):
        state = decoder.start(audio[index : index + 1], 11)
        parts = [row[None], *following[index : index + 1].split(1, 1)]
        for part, expected in zip(parts, together, strict=True):
            alone = decoder.step(state, part)[0, -1]
            torch.testing.assert_close(alone, expected[index], rtol=1e-4, atol=1e-4)


def test_rows_that_forget_tokens_continue_without_a_trace_of_them(
    checkpoint: Checkpoint,
) -> None:
    decoder = Decoder(checkpoint, CPU, EXACT)
    audio = Encoder(checkpoint, CPU, torch.float32)(mel(3, FULL))
    rows, following = prompts(3, 9), prompts(3, 2)
    forgotten = [[4, 1, 0], [2, 2, 3]]
    state = decoder.start(audio, 20)
    decoder.step(state, rows)
    kept = [list(row) for row in rows]
    for counts in forgotten:
        decoder.forget(state, counts)
        kept = [row[: len(row) - count] for row, count in zip(kept, counts, strict=True)]
        together = decoder.step(state, following)
        kept = [[*row, *more] for row, more in zip(kept, following, strict=True)]
    for index, row in enumerate(kept):
        alone = decoder.step(decoder.start(audio[index : index + 1], 20), torch.tensor([row]))[0, -1]
        torch.testing.assert_close(alone, together[index, -1], rtol=1e-4, atol=1e-4)


def test_the_attention_of_alignment_heads_equals_transformers(small_whisper: Any, checkpoint: Checkpoint) -> None:
    decoder = Decoder(checkpoint, CPU, EXACT)
    audio = Encoder(checkpoint, CPU, torch.float32)(mel(2, FULL))
    tokens = prompts(2, 8)
    reference = copy.deepcopy(small_whisper.model)
    reference.set_attn_implementation("eager")
    expected = reference(encoder_outputs=(audio,), decoder_input_ids=tokens, output_attentions=True).cross_attentions
    seen: list[torch.Tensor] = []
    decoder.step(decoder.start(audio, 8), tokens, seen.append)
    assert len(seen) == 1  # the upper half of two layers, since the model names no heads
    torch.testing.assert_close(seen[0].softmax(dim=-1), expected[1], rtol=1e-4, atol=1e-5)


def test_a_second_pass_over_some_rows_is_the_first_pass_over_them(checkpoint: Checkpoint) -> None:
    decoder = Decoder(checkpoint, CPU, EXACT)
    tokens = prompts(3, 4)
    state = decoder.start(Encoder(checkpoint, CPU, torch.float32)(mel(3, FULL)), 4)
    hidden = decoder.step(state, tokens)
    for rows in ([0, 1, 2], [2, 0]):
        again = decoder.step(decoder.start_again(state, rows, 4), tokens[rows])
        torch.testing.assert_close(again, hidden[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_an_int8_layer_is_within_a_hundredth_of_the_float_layer(bias: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(96, 64, generator=generator)
    offset = torch.randn(96, generator=generator) if bias else None
    x = torch.randn(5, 64, generator=generator)
    expected = DenseLinear(weight, offset)(x)
    error = (Int8Linear(weight, offset)(x) - expected).norm() / expected.norm()
    assert error < 0.015


def test_an_int8_layer_keeps_a_row_of_zeros() -> None:
    weight = torch.zeros(4, 8)
    assert not Int8Linear(weight, None)(torch.ones(1, 8)).any()


def test_with_int8_weights_the_likeliest_logits_are_exact(
    checkpoint: Checkpoint,
) -> None:
    quantised = Decoder(checkpoint, CPU, Precision(torch.float32, torch.float32, quantised_decoder=True))
    hidden = torch.randn(3, checkpoint.shape.d_model, generator=torch.Generator().manual_seed(4))
    exact, logits = Decoder(checkpoint, CPU, EXACT).logits(hidden), quantised.logits(hidden)
    likeliest = exact.topk(5).indices
    torch.testing.assert_close(logits.gather(-1, likeliest), exact.gather(-1, likeliest))
    assert torch.equal(logits.topk(5).indices, likeliest)
    # Of several places of each row, too.
    torch.testing.assert_close(quantised.logits(hidden[:, None])[:, 0].topk(5).values, logits.topk(5).values)
