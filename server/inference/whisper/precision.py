"""The number formats that a model is computed in, by device."""

from dataclasses import dataclass

import torch

from server.inference.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Precision:
    """The formats of the forward pass of one model."""

    encoder: torch.dtype
    decoder: torch.dtype
    quantised_decoder: bool
    """Whether the linear layers of the decoder have int8 weights."""


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda".

    Raises:
        WeightsError: CUDA is requested and not available.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise WeightsError("DALSTON_DEVICE is cuda, and this machine has no CUDA device that this torch can use")
    return torch.device(wanted)


def choose_precision(device: torch.device) -> Precision:
    """The fastest formats that do not reduce accuracy.

    On a CPU int8 weights accelerate the decoder, and `Decoder.logits` restores the accuracy that they cost; in the
    encoder they would cost three points of word error rate. bfloat16 costs the encoder none, and is faster than float32
    only if the CPU multiplies it natively.
    """
    if device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return Precision(encoder=dtype, decoder=dtype, quantised_decoder=False)
    native = _multiplies_bfloat16()
    return Precision(
        encoder=torch.bfloat16 if native else torch.float32,
        decoder=torch.float32,
        quantised_decoder=_quantises(),
    )


def _multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _quantises() -> bool:
    return bool({"x86", "fbgemm", "qnnpack"} & set(torch.backends.quantized.supported_engines))
