"""Whisper's encoder, for any number of encoder frames up to the full window."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from server.inference.whisper.checkpoint import Checkpoint
from server.inference.whisper.layers import LayerFactory, Linear, Norm


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Norm
    query_key_value: Linear
    attention_out: Linear
    feed_norm: Norm
    feed_in: Linear
    feed_out: Linear


class Encoder:
    """Unlike transformers' encoder, which only takes 30 s of audio: a shorter window uses the first positions."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        make = LayerFactory(checkpoint, device, dtype)
        self._heads = checkpoint.shape.encoder_attention_heads
        self._dtype = dtype
        self._convolutions = [
            (make.tensor(f"encoder.{name}.weight"), make.tensor(f"encoder.{name}.bias"), stride)
            for name, stride in (("conv1", 1), ("conv2", 2))
        ]
        self._positions = make.tensor("encoder.embed_positions.weight")
        names = [f"encoder.layers.{index}" for index in range(checkpoint.shape.encoder_layers)]
        self._layers = [_layer(make, name) for name in names]
        self._norm = make.norm("encoder.layer_norm")

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        """[rows, mel_bins, 2 * encoder frames] -> [rows, encoder frames, width]."""
        x = mel.to(self._dtype)
        for weight, bias, stride in self._convolutions:
            x = functional.gelu(functional.conv1d(x, weight, bias, stride=stride, padding=1))
        x = x.transpose(1, 2)
        x = x + self._positions[: x.shape[1]]
        for layer in self._layers:
            x = x + self._attend(layer, layer.attention_norm(x))
            x = x + layer.feed_out(functional.gelu(layer.feed_in(layer.feed_norm(x))))
        return self._norm(x)

    def _attend(self, layer: _Layer, x: torch.Tensor) -> torch.Tensor:
        rows, encoder_frames, width = x.shape
        query, key, value = (
            layer.query_key_value(x).view(rows, encoder_frames, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return layer.attention_out(mixed.transpose(1, 2).reshape(rows, encoder_frames, width))


def _layer(make: LayerFactory, name: str) -> _Layer:
    return _Layer(
        attention_norm=make.norm(f"{name}.self_attn_layer_norm"),
        query_key_value=make.fused([f"{name}.self_attn.{part}_proj" for part in "qkv"]),
        attention_out=make.linear(f"{name}.self_attn.out_proj"),
        feed_norm=make.norm(f"{name}.final_layer_norm"),
        feed_in=make.linear(f"{name}.fc1"),
        feed_out=make.linear(f"{name}.fc2"),
    )
