"""Reader of CTranslate2's `model.bin`, binary versions 2 to 6.

The layout, little-endian, strings being a u16 length with the closing NUL counted:

    u32 version, string specification, u32 revision
    u32 number of tensors, and for each
        string name, u8 rank, u32 per dimension
        version >= 4: u8 type, u32 bytes        before: u8 item size, u32 items
        the data
    version >= 3: u32 number of aliases, and for each: string alias, string name of a tensor above

A file may be truncated or of another format, so no length is trusted before it is checked against the file's.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.inference.errors import WeightsError

_OLDEST, _NEWEST = 2, 6
_MAX_RANK = 4
_TYPES = ("<f4", "<i1", "<i2", "<i4", "<f2", "<u2")
_TYPE_BY_ITEM_SIZE = {1: "<i1", 2: "<i2", 4: "<f4"}
BFLOAT16 = np.dtype("<u2")
"""numpy has no bfloat16: such tensors are read as 16-bit integers."""


@dataclass(frozen=True, slots=True)
class Ct2Model:
    specification: str
    """The kind of model: `WhisperSpec` for Whisper."""
    revision: int
    tensors: dict[str, NDArray[Any]]
    """Views of the file, read on access; aliases are resolved to the tensor that they name."""


class _Cursor:
    """Reads forward through a buffer, and never past its end."""

    def __init__(self, data: NDArray[np.uint8], path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._at

    def read(self, size: int, what: str) -> NDArray[np.uint8]:
        if size > self.remaining:
            raise WeightsError(
                f"{self._path} is truncated or damaged: it ends {size - self.remaining} bytes short, within {what}"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, code: str, what: str) -> int:
        (value,) = struct.unpack("<" + code, self.read(struct.calcsize(code), what).tobytes())
        return int(value)

    def string(self, what: str) -> str:
        raw = self.read(self.number("H", what), what).tobytes().rstrip(b"\0")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.damaged(what) from None

    def damaged(self, what: str) -> WeightsError:
        return WeightsError(f"{self._path} is damaged, or no CTranslate2 model: {what} is invalid")


def read_ct2(path: Path) -> Ct2Model:
    """The tensors of a `model.bin`, which are read from disk on access.

    Raises:
        WeightsError: the file is truncated, damaged, of an unknown version, or not a CTranslate2 model.
    """
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is truncated or damaged: it is empty")
    cursor = _Cursor(np.memmap(path, dtype=np.uint8, mode="r"), path)
    version = cursor.number("I", "the version")
    if not _OLDEST <= version <= _NEWEST:
        raise WeightsError(f"{path} is no CTranslate2 model of a known version ({_OLDEST} to {_NEWEST})")
    specification = cursor.string("the specification")
    revision = cursor.number("I", "the revision")
    tensors: dict[str, NDArray[Any]] = {}
    for _ in range(cursor.number("I", "the number of tensors")):
        name, tensor = _read_tensor(cursor, version)
        tensors[name] = tensor
    if version >= 3:
        for _ in range(cursor.number("I", "the number of aliases")):
            alias, name = cursor.string("an alias"), cursor.string("an alias")
            if name not in tensors:
                raise cursor.damaged(f"the alias {alias!r}")
            tensors[alias] = tensors[name]
    if cursor.remaining:
        raise cursor.damaged(f"what follows the last tensor ({cursor.remaining} bytes)")
    return Ct2Model(specification, revision, tensors)


def _read_tensor(cursor: _Cursor, version: int) -> tuple[str, NDArray[Any]]:
    name = cursor.string("a tensor's name")
    rank = cursor.number("B", f"the rank of {name!r}")
    if rank > _MAX_RANK:
        raise cursor.damaged(f"the rank of {name!r}")
    shape = tuple(cursor.number("I", f"the shape of {name!r}") for _ in range(rank))
    kind = cursor.number("B", f"the type of {name!r}")
    if version >= 4:
        if kind >= len(_TYPES):
            raise cursor.damaged(f"the type of {name!r}")
        dtype = np.dtype(_TYPES[kind])
        size = cursor.number("I", f"the size of {name!r}")
    else:
        if kind not in _TYPE_BY_ITEM_SIZE:
            raise cursor.damaged(f"the type of {name!r}")
        dtype = np.dtype(_TYPE_BY_ITEM_SIZE[kind])
        size = cursor.number("I", f"the size of {name!r}") * dtype.itemsize
    if size != math.prod(shape) * dtype.itemsize:
        raise cursor.damaged(f"the size of {name!r}")
    return name, cursor.read(size, f"tensor {name!r}").view(dtype).reshape(shape)
