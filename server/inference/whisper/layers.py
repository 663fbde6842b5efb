"""Linear layers and norms, with weights in the format that they are computed in."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from server.inference.whisper.checkpoint import Checkpoint

Linear = Callable[[torch.Tensor], torch.Tensor]
"""[..., in] -> [..., out]"""


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """A linear layer in one float format."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


class Int8Linear:
    """A linear layer with int8 weights, one scale a row, on float32 activations of a CPU.

    Activations are quantised dynamically with one scale for the whole input: within rounding, the result of a row
    depends on the other rows of its batch.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        weight = weight.float()
        scales = weight.abs().amax(dim=1).clamp_min(1e-9) / 127
        values = (weight / scales[:, None]).round_().to(torch.int8)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            # torch deprecates tensors of quantised type in favour of torchao, whose layers take ten times as long for
            # one token. The tensor exists only for these two lines; the packed weights are used.
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
            quantised = torch._make_per_channel_quantized_tensor(values, scales, zeros, 0)
        self._packed: Any = torch.ops.quantized.linear_prepack(quantised, None if bias is None else bias.float())
        self._reduce_range = not _accumulates_exactly()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, self._reduce_range)
        return y


def _accumulates_exactly() -> bool:
    """Whether 8-bit products are summed without saturation; without VNNI activations are limited to 7 bits."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") != "x86_64":
        return True
    return bool(capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation over the last dimension."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class LayerFactory:
    """Makes layers from a checkpoint's tensors, on one device and in one format."""

    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    quantised: bool = False

    def tensor(self, name: str) -> torch.Tensor:
        return self.checkpoint.tensor(name).to(self.device, self.dtype, copy=True)

    def norm(self, name: str) -> Norm:
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def linear(self, name: str) -> Linear:
        return self.fused([name])

    def fused(self, names: Sequence[str]) -> Linear:
        """One layer whose output is the concatenation of the named layers' outputs. A missing bias counts as zeros."""
        weights = [self.checkpoint.tensor(f"{name}.weight") for name in names]
        biases = [
            self.checkpoint.tensors.get(f"{name}.bias", weight.new_zeros(len(weight)))
            for name, weight in zip(names, weights, strict=True)
        ]
        return self.make(torch.cat(weights), torch.cat(biases))

    def make(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        if self.quantised:
            return Int8Linear(weight, bias)
        return DenseLinear(
            weight.to(self.device, self.dtype, copy=True),
            None if bias is None else bias.to(self.device, self.dtype, copy=True),
        )
