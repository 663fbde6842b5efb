"""Telephone audio (ITU-T G.711): tables that map a byte to its sample, full scale 1.0."""

import numpy as np
from numpy.typing import NDArray


def _mulaw_table() -> NDArray[np.float32]:
    """The mu-law expansion: a biased 14-bit magnitude as 3 bits of exponent and 4 of mantissa, all bits inverted."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 0x07, code & 0x0F
    magnitude = (((mantissa.astype(np.int32) << 3) + 0x84) << exponent) - 0x84
    return _signed(magnitude, negative=(code & 0x80) != 0)


def _alaw_table() -> NDArray[np.float32]:
    """The A-law expansion: a 13-bit magnitude as 3 bits of exponent and 4 of mantissa, even bits inverted."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 0x07).astype(np.int32), (code & 0x0F).astype(np.int32)
    linear = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, linear, (linear + 0x100) << np.maximum(exponent - 1, 0))
    return _signed(magnitude, negative=(code & 0x80) == 0)


def _signed(magnitude: NDArray[np.int32], negative: NDArray[np.bool_]) -> NDArray[np.float32]:
    return (np.where(negative, -magnitude, magnitude) / 32768).astype(np.float32)


MULAW_TO_PCM = _mulaw_table()
ALAW_TO_PCM = _alaw_table()
